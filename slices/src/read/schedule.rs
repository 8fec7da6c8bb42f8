//! When a slice is to start and to end.

use selvedge_topology::Problem;
use selvedge_topology::yaml::Value;

use super::Reader;
use crate::schedule::{Schedule, Timestamp};

impl Reader {
    pub(super) fn schedule(&mut self, value: &Value) -> Option<Schedule> {
        let mut fields = self.d.fields(value, "a schedule")?;
        let start_value = fields.optional("start");
        let start = start_value.and_then(|v| self.d.parse::<Timestamp>(v, "a start"));
        let end_value = fields.optional("end");
        let end = end_value.and_then(|v| self.d.parse::<Timestamp>(v, "an end"));
        let span = fields.span.clone();
        fields.finish(&mut self.d);
        if start_value.is_none() && end_value.is_none() {
            let problem = Problem::new(span, "a schedule has a start, an end or both");
            self.d.problem(problem.label("neither here"));
        }
        if let (Some(start), Some(end), Some(value)) = (start, end, end_value)
            && end <= start
        {
            let message = format!("the end {end} is not after the start {start}");
            self.d.problem(Problem::new(value.span.clone(), message).label("too early"));
        }
        Some(Schedule { start, end })
    }
}
