//! Slices as `NetworkSlice` managed objects.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::VS_DATA_TYPE;
use crate::{
    Direction, Endpoint, NetworkSlice, Object, Rates, ResourceSharingLevel, Side, document,
};

/// A public land mobile network: `mcc` of three digits, `mnc` of two or three (TS 23.003 §2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plmn {
    mcc: String,
    mnc: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a PLMN: three digits of MCC and two or three of MNC, such as 00101")]
pub struct PlmnError(String);

impl FromStr for Plmn {
    type Err = PlmnError;

    fn from_str(text: &str) -> Result<Self, PlmnError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        if !digits || !(5..=6).contains(&text.len()) {
            return Err(PlmnError(text.to_owned()));
        }
        Ok(Self { mcc: text[..3].to_owned(), mnc: text[3..].to_owned() })
    }
}

/// A slice and its states (TS 28.541 §6.3.1; ITU-T X.731).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub slice: NetworkSlice,
    /// `LOCKED` or `UNLOCKED`.
    pub administrative_state: &'static str,
    /// `ENABLED` or `DISABLED`.
    pub operational_state: &'static str,
}

/// The contents of a `SubNetwork`: its `NetworkSlice`s. Without a PLMN the S-NSSAI stands in
/// `sNSSAIList`, as it did before release 16.
pub fn export(slices: &[Exported], plmn: Option<&Plmn>) -> Value {
    let objects: Vec<Value> = slices.iter().map(|of| network_slice(of, plmn)).collect();
    json!({ "NetworkSlice": objects })
}

fn network_slice(of: &Exported, plmn: Option<&Plmn>) -> Value {
    let name = of.slice.name.as_str();
    json!({
        "id": name,
        "attributes": {
            "administrativeState": of.administrative_state,
            "operationalState": of.operational_state,
            "serviceProfileList": [service_profile(&of.slice, plmn)],
        },
        "VsDataContainer": [{
            "id": "1",
            "attributes": {
                "vsDataType": VS_DATA_TYPE,
                "vsDataFormatVersion": "1",
                "vsData": vs_data(&of.slice),
            },
        }],
    })
}

fn service_profile(slice: &NetworkSlice, plmn: Option<&Plmn>) -> Value {
    let mut profile = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        profile.extend(value.map(|value| (key.to_owned(), value)));
    };
    put("serviceProfileId", Some(slice.name.as_str().into()));
    if let Some(id) = slice.s_nssai {
        let mut snssai = json!({ "sst": id.sst() });
        if let Some(sd) = id.sd() {
            snssai["sd"] = format!("{sd:06X}").into();
        }
        put("sst", Some(id.sst().into()));
        match plmn {
            Some(Plmn { mcc, mnc }) => put(
                "plmnInfoList",
                Some(json!([{ "plmnId": { "mcc": mcc, "mnc": mnc }, "snssai": snssai }])),
            ),
            None => put("sNSSAIList", Some(json!([snssai]))),
        }
    }
    put("maxNumberofUEs", slice.max_ues.map(Into::into));
    let sessions = slice.max_pdu_sessions.map(|most| json!({ "nOofPDUSessions": most }));
    put("maxNumberofPDUSessions", sessions);
    let latency = slice.latency.map(|latency| thousandths(latency.us()));
    put("dLLatency", latency.clone());
    put("uLLatency", latency);
    put("availability", slice.availability.map(|share| parts(share.ppm().into(), 10_000)));
    let level = match slice.resource_sharing_level {
        ResourceSharingLevel::Shared => "SHARED",
        ResourceSharingLevel::NonShared => "NON-SHARED",
    };
    put("resourceSharingLevel", Some(level.into()));
    for (direction, key, per_ue) in [
        (Direction::Downlink, "dLThptPerSlice", "dLThptPerUE"),
        (Direction::Uplink, "uLThptPerSlice", "uLThptPerUE"),
    ] {
        put(key, throughput(slice.rates(direction)));
        put(per_ue, rates_of_each(slice, direction).and_then(throughput));
    }
    Value::Object(profile)
}

/// The rates that every `ue` has alike; `None`: they differ.
fn rates_of_each(slice: &NetworkSlice, direction: Direction) -> Option<&Rates> {
    let mut users = slice.endpoints.iter().filter(|endpoint| endpoint.side == Side::Ue);
    let first = users.next()?.rates(direction);
    users.all(|other| other.rates(direction) == first).then_some(first)
}

fn throughput(rates: &Rates) -> Option<Value> {
    let mut thpt = Map::new();
    thpt.extend(rates.guaranteed.map(|rate| ("guaThpt".to_owned(), thousandths(rate.0))));
    thpt.extend(rates.maximum.map(|rate| ("maxThpt".to_owned(), thousandths(rate.0))));
    (!thpt.is_empty()).then_some(Value::Object(thpt))
}

/// `value / 1000`, a whole number where it is one.
fn thousandths(value: u64) -> Value {
    parts(value, 1_000)
}

fn parts(value: u64, of: u32) -> Value {
    if value.is_multiple_of(u64::from(of)) {
        return (value / u64::from(of)).into();
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 10^11, far below 2^53")]
    let value = value as f64;
    (value / f64::from(of)).into()
}

/// The keys of `spec` that a ServiceProfile has no attribute for, as a document has them.
fn vs_data(slice: &NetworkSlice) -> Value {
    // What a template filled in is stated: the standard knows no templates.
    let mut slice = NetworkSlice { template: None, ..slice.clone() };
    for direction in Direction::ALL {
        if rates_of_each(&slice, direction).is_some() {
            slice.endpoints.iter_mut().for_each(|endpoint| forget(endpoint, direction));
        }
    }
    let mut document = document::of(&Object::NetworkSlice(slice));
    let Value::Object(mut spec) = document["spec"].take() else { return json!({}) };
    for key in ["sNssai", "latency", "availability", "resourceSharingLevel"] {
        spec.remove(key);
    }
    for key in ["maxNumberofUEs", "maxNumberofPDUSessions"] {
        spec.remove(key);
    }
    for key in ["downlink", "uplink"] {
        let burst = spec.remove(key).and_then(|mut rates| Some(rates.get_mut("burst")?.take()));
        spec.extend(burst.map(|burst| (key.to_owned(), json!({ "burst": burst }))));
    }
    Value::Object(spec)
}

fn forget(endpoint: &mut Endpoint, direction: Direction) {
    match direction {
        Direction::Downlink => endpoint.downlink = Rates::default(),
        Direction::Uplink => endpoint.uplink = Rates::default(),
    }
}
