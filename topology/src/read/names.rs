//! Labels of public data sets become node names, always the same way.

use std::collections::{BTreeMap, BTreeSet};

use super::Assumption;
use crate::limits::MAX_PORTS;
use crate::{End, NodeName, PortName, Problem};

/// One name for each label: the nearest valid one; for labels without any, `node-<row>`. Of
/// those that come out alike the first keeps the name and the others get `-2`, `-3`, ..., in the
/// order of the file.
pub(super) fn assign(labels: &[&str]) -> (Vec<NodeName>, Option<Assumption>) {
    let wanted: Vec<NodeName> = labels
        .iter()
        .enumerate()
        .map(|(row, label)| {
            NodeName::from_label(label)
                .unwrap_or_else(|| format!("node-{row}").parse().expect("a valid name"))
        })
        .collect();
    let all: BTreeSet<&NodeName> = wanted.iter().collect();
    let mut taken: BTreeSet<NodeName> = BTreeSet::new();
    let mut names = Vec::with_capacity(labels.len());
    for want in &wanted {
        let free = |name: &NodeName| !taken.contains(name);
        let name = if free(want) {
            want.clone()
        } else {
            let numbered = (2..).map(|n: u32| {
                let suffix = format!("-{n}");
                let base = &want.as_str()[..want.as_str().len().min(NodeName::MAX - suffix.len())];
                format!("{}{suffix}", base.trim_end_matches('-')).parse().expect("a valid name")
            });
            // Not one that another label has a better claim to.
            let fresh = |name: &NodeName| free(name) && !all.contains(name);
            numbered.into_iter().find(fresh).expect("numbers do not run out")
        };
        taken.insert(name.clone());
        names.push(name);
    }
    let changed: Vec<(String, String)> = labels
        .iter()
        .zip(&names)
        .filter(|(label, name)| **label != name.as_str())
        .map(|(label, name)| ((*label).to_owned(), name.to_string()))
        .collect();
    let renamed = (!changed.is_empty()).then_some(Assumption::Renamed { names: changed });
    (names, renamed)
}

/// Hands out `p1`, `p2`, ... of each node, in the order of the links.
#[derive(Default)]
pub(super) struct Ports(BTreeMap<NodeName, usize>);

impl Ports {
    pub(super) fn next(&mut self, node: &NodeName) -> Result<End, Problem> {
        let count = self.0.entry(node.clone()).or_default();
        *count += 1;
        if *count > MAX_PORTS {
            return Err(Problem::new(0..0, format!("{node} has more than {MAX_PORTS} links")));
        }
        let port: PortName = format!("p{count}").parse().expect("a valid name");
        Ok(End { node: node.clone(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_labels_stay_apart() {
        let long = "x".repeat(80);
        let labels = ["A", "a", "a-2", "", "A", &long, &long, "?", "node-3"];
        let (names, renamed) = assign(&labels);
        let got: Vec<&str> = names.iter().map(NodeName::as_str).collect();
        let (x63, x61) = ("x".repeat(63), "x".repeat(61) + "-2");
        let want = ["a", "a-3", "a-2", "node-3", "a-4", &x63, &x61, "node-7", "node-3-2"];
        assert_eq!(got, want);
        assert!(matches!(renamed, Some(Assumption::Renamed { names }) if names.len() == 8));
    }

    proptest::proptest! {
        #[test]
        fn names_are_unique_and_stable(labels in proptest::collection::vec("[a-c2éÄ -]{0,4}", 0..40)) {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let (names, _) = assign(&labels);
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), labels.len());
            assert_eq!(assign(&labels).0, names);
        }
    }
}
