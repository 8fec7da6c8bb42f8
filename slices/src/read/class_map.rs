//! A document of `kind: ClassMap`.

use std::collections::BTreeMap;

use selvedge_topology::Problem;
use selvedge_topology::yaml::{Fields, Value};

use super::Reader;
use crate::class::{self, Class};
use crate::class_map::OPERATOR_FIVE_QIS;
use crate::{ClassMap, ObjectName};

impl Reader {
    pub(super) fn class_map(&mut self, name: ObjectName, mut spec: Fields<'_>) -> ClassMap {
        let sst = self.classes(spec.optional("sst"), "an SST", |_| true);
        let five_qi =
            self.classes(spec.optional("5qi"), "a 5QI, standardized or 128 to 254", |n| {
                class::of_five_qi(n).is_some() || OPERATOR_FIVE_QIS.contains(&n)
            });
        let dscp = self.classes(spec.optional("dscp"), "a DSCP from 0 to 63", |n| n < 64);
        spec.finish(&mut self.d);
        ClassMap { name, sst, five_qi, dscp }
    }

    fn classes(
        &mut self,
        value: Option<&Value>,
        what: &'static str,
        known: fn(u8) -> bool,
    ) -> BTreeMap<u8, Class> {
        let words = Class::ALL.map(|class| (class.as_str(), class));
        let mut classes = BTreeMap::new();
        for (key, value) in value.map(|v| self.d.entries(v, what)).unwrap_or_default() {
            let class = self.d.choice(value, "a class", &words);
            let number = key.text.parse::<u8>().ok();
            // As a number is written, so that none is there twice.
            let number = number.filter(|n| n.to_string() == key.text && known(*n));
            let Some(number) = number else {
                let message = format!("{:?} is not {what}", key.text);
                self.d.problem(Problem::new(key.span.clone(), message));
                continue;
            };
            classes.extend(class.map(|class| (number, class)));
        }
        classes
    }
}
