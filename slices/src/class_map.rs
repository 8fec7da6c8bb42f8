//! Which class 5QIs, SSTs and DSCPs stand for: 3GPP's tables, and what an operator says instead.

use std::collections::BTreeMap;

use crate::class::{self, Class, ClassReason};
use crate::{NetworkSlice, ObjectName, Snssai};

/// The operator's map. A network has one at most; numbers that it does not name mean what
/// [`class::of_five_qi`] and [`class::of_sst`] say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    pub name: ObjectName,
    /// By slice/service type: the class of a slice.
    pub sst: BTreeMap<u8, Class>,
    /// By 5QI, standardized or operator-specific: the class of a slice that states one.
    pub five_qi: BTreeMap<u8, Class>,
    /// By DSCP of a packet in a slice: its class, though never above the slice's own.
    pub dscp: BTreeMap<u8, Class>,
}

/// 5QIs that an operator may give a meaning (TS 24.501 §9.11.4.12: operator-specific).
pub const OPERATOR_FIVE_QIS: std::ops::RangeInclusive<u8> = 128..=254;

/// One line of the map that holds: a number, its class, and whether the operator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// `5qi`, `sst` or `dscp`.
    pub by: &'static str,
    pub number: u8,
    pub class: Class,
    pub stated: bool,
}

/// The class of a 5QI; `None`: neither the map nor 3GPP knows it.
pub fn of_five_qi(map: Option<&ClassMap>, number: u8) -> Option<Class> {
    let stated = map.and_then(|map| map.five_qi.get(&number).copied());
    stated.or_else(|| class::of_five_qi(number))
}

/// The class of an SST; `None`: it decides nothing.
pub fn of_sst(map: Option<&ClassMap>, number: u8) -> Option<Class> {
    map.and_then(|map| map.sst.get(&number).copied()).or_else(|| class::of_sst(number))
}

/// Every line that holds, by 5QI, SST and DSCP.
pub fn rows(map: Option<&ClassMap>) -> Vec<Row> {
    let none = BTreeMap::new();
    let stated = |of: fn(&ClassMap) -> &BTreeMap<u8, Class>| map.map_or(&none, of);
    let table = |by, stated: &BTreeMap<u8, Class>, standard: fn(u8) -> Option<Class>| {
        let row = |number: u8| {
            let said = stated.get(&number).copied();
            let class = said.or_else(|| standard(number))?;
            Some(Row { by, number, class, stated: said.is_some() })
        };
        (0..=u8::MAX).filter_map(row).collect::<Vec<_>>()
    };
    let mut rows = table("5qi", stated(|map| &map.five_qi), class::of_five_qi);
    rows.extend(table("sst", stated(|map| &map.sst), class::of_sst));
    rows.extend(table("dscp", stated(|map| &map.dscp), |_| None));
    rows
}

impl NetworkSlice {
    /// Puts the slice into the class that the map gives it. A class that was stated stays.
    pub fn classify(&mut self, map: Option<&ClassMap>) {
        let stated = (self.class_reason == ClassReason::Stated).then_some(self.class);
        let has_guarantee = self.downlink.guaranteed.or(self.uplink.guaranteed).is_some();
        let five_qi = self.five_qi.and_then(|number| Some((number, of_five_qi(map, number)?)));
        let sst = self.s_nssai.map(Snssai::sst);
        let sst = sst.and_then(|number| Some((number, of_sst(map, number)?)));
        (self.class, self.class_reason) = class::derive(stated, five_qi, sst, has_guarantee);
    }

    /// Its 5QI, where that has no class and decides one.
    pub fn unknown_five_qi(&self, map: Option<&ClassMap>) -> Option<u8> {
        let number = self.five_qi.filter(|number| of_five_qi(map, *number).is_none())?;
        (self.class_reason != ClassReason::Stated).then_some(number)
    }
}
