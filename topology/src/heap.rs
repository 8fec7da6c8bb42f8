//! A priority queue of (key, item), smallest first: four children a node, in one array. Four
//! children are one or two cache lines, and half the levels of a binary heap.

#[derive(Clone, Debug, Default)]
pub(crate) struct Heap {
    entries: Vec<(u64, u32)>,
}

const CHILDREN: usize = 4;

impl Heap {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    #[inline]
    pub(crate) fn push(&mut self, key: u64, item: u32) {
        let mut at = self.entries.len();
        self.entries.push((key, item));
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if self.entries[parent].0 <= key {
                break;
            }
            self.entries[at] = self.entries[parent];
            at = parent;
        }
        self.entries[at] = (key, item);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(u64, u32)> {
        let least = *self.entries.first()?;
        let last = self.entries.pop().expect("there is a first one");
        let len = self.entries.len();
        if len == 0 {
            return Some(least);
        }
        let mut at = 0;
        loop {
            let children = at * CHILDREN + 1;
            let mut smallest = children;
            if children >= len {
                break;
            }
            for child in children + 1..(children + CHILDREN).min(len) {
                if self.entries[child].0 < self.entries[smallest].0 {
                    smallest = child;
                }
            }
            if self.entries[smallest].0 >= last.0 {
                break;
            }
            self.entries[at] = self.entries[smallest];
            at = smallest;
        }
        self.entries[at] = last;
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pops_in_order(ops in proptest::collection::vec(proptest::option::of(0u64..50), 0..200)) {
            let (mut heap, mut model) = (Heap::default(), Vec::new());
            for op in ops {
                match op {
                    Some(key) => {
                        heap.push(key, 7);
                        model.push(key);
                    }
                    None => {
                        model.sort_unstable_by(|a, b| b.cmp(a));
                        prop_assert_eq!(heap.pop(), model.pop().map(|key| (key, 7)));
                    }
                }
            }
        }
    }
}
