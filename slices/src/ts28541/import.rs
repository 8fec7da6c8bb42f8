//! Slices from `NetworkSlice` and `ServiceProfile` objects.

use selvedge_topology::{BitRate, Delay, Loss, NodeName};
use serde_json::{Map, Value, json};

use super::VS_DATA_TYPE;
use crate::read::API_VERSION;
use crate::{Object, Side, document};

/// A slice that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub object: Object,
    /// Attributes that a slice does not have, with their place and value: nothing of them is in
    /// `object`.
    pub lost: Vec<String>,
}

/// Attributes whose every value a slice of its own satisfies, or that say what is anyhow so.
const SATISFIED: [&str; 3] = ["networkSliceSharingIndicator", "serviceProfileId", "servAttrCom"];

/// Reads what [`export`](super::export) writes, a single `NetworkSlice`, or `ServiceProfile`s
/// by themselves. `endpoints` are those of slices that come without: a ServiceProfile has none.
///
/// # Errors
/// Everything that is wrong, a line each.
pub fn import(text: &str, endpoints: &[(Side, NodeName)]) -> Result<Vec<Imported>, Vec<String>> {
    let value: Value = serde_json::from_str(text).map_err(|error| vec![error.to_string()])?;
    let mut found = Found { endpoints, read: Vec::new(), wrong: Vec::new() };
    found.any("", &value);
    if found.read.is_empty() && found.wrong.is_empty() {
        found.wrong.push("there is no NetworkSlice and no ServiceProfile in it".to_owned());
    }
    if found.wrong.is_empty() { Ok(found.read) } else { Err(found.wrong) }
}

struct Found<'a> {
    endpoints: &'a [(Side, NodeName)],
    read: Vec<Imported>,
    wrong: Vec<String>,
}

impl Found<'_> {
    fn any(&mut self, place: &str, value: &Value) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.any(&format!("{place}[{index}]"), item);
                }
            }
            Value::Object(fields) if fields.contains_key("attributes") => {
                self.network_slice(place, fields);
            }
            Value::Object(fields) => {
                let inside = ["SubNetwork", "NetworkSlice"]
                    .into_iter()
                    .filter_map(|key| Some((key, fields.get(key)?)));
                let inside: Vec<_> = inside.collect();
                if inside.is_empty() {
                    self.profile(place, fields, None, &Map::new(), Vec::new());
                }
                for (key, value) in inside {
                    self.any(&dotted(place, key), value);
                }
            }
            _ => self.wrong.push(format!("{place}: an object or a list is expected")),
        }
    }

    fn network_slice(&mut self, place: &str, object: &Map<String, Value>) {
        let none = Map::new();
        let attributes = object["attributes"].as_object().unwrap_or(&none);
        let profiles = attributes.get("serviceProfileList").and_then(Value::as_array);
        let Some(profiles) = profiles else {
            let place = dotted(place, "attributes");
            self.wrong.push(format!("{place}: there is no serviceProfileList"));
            return;
        };
        let mut lost = Vec::new();
        let known = ["serviceProfileList", "administrativeState", "operationalState", "userLabel"];
        for (key, value) in attributes.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            lost.push(told(&dotted(place, "attributes"), key, value));
        }
        let own = object.get("VsDataContainer").and_then(Value::as_array).and_then(|containers| {
            let attributes = containers.iter().filter_map(|one| one.get("attributes"));
            let mut ours = attributes.filter(|a| a["vsDataType"] == VS_DATA_TYPE);
            ours.next()?.get("vsData")?.as_object()
        });
        for (key, value) in object {
            let taken = key == "VsDataContainer" && own.is_some();
            if !taken && !["id", "attributes", "objectClass", "objectInstance"].contains(&&**key) {
                lost.push(told(place, key, value));
            }
        }
        // Several profiles are several slices, each with a name of its own.
        let id = object.get("id").and_then(Value::as_str).filter(|_| profiles.len() == 1);
        for (index, profile) in profiles.iter().enumerate() {
            let place = dotted(place, &format!("attributes.serviceProfileList[{index}]"));
            match profile.as_object() {
                Some(profile) => {
                    self.profile(&place, profile, id, own.unwrap_or(&none), lost.clone());
                }
                None => self.wrong.push(format!("{place}: a ServiceProfile is an object")),
            }
        }
    }

    fn profile(
        &mut self,
        place: &str,
        profile: &Map<String, Value>,
        id: Option<&str>,
        own: &Map<String, Value>,
        lost: Vec<String>,
    ) {
        let mut reader = Profile { place, spec: own.clone(), lost, wrong: Vec::new() };
        let stated = id.or_else(|| profile.get("serviceProfileId").and_then(Value::as_str));
        let name = stated.and_then(NodeName::from_label);
        if name.as_ref().is_some_and(|name| Some(name.as_str()) != stated) {
            let was = stated.unwrap_or_default();
            reader.lost.push(format!("{place}: its name {was:?}, which is spelled otherwise here"));
        }
        for (key, value) in profile {
            reader.attribute(key, value);
        }
        if name.is_none() {
            reader.wrong("serviceProfileId", "a name is needed, of letters, digits and '-'");
        }
        reader.endpoints(profile, self.endpoints);
        let Profile { spec, lost, wrong, .. } = reader;
        if !wrong.is_empty() {
            self.wrong.extend(wrong);
            return;
        }
        let name = name.map(|name| name.as_str().to_owned()).unwrap_or_default();
        let document = json!({
            "apiVersion": API_VERSION, "kind": "NetworkSlice",
            "metadata": { "name": name }, "spec": spec,
        });
        match document::object(&document) {
            Ok(object) => self.read.push(Imported { object, lost }),
            Err(wrong) => self.wrong.push(format!("{place}: {wrong}")),
        }
    }
}

struct Profile<'a> {
    place: &'a str,
    spec: Map<String, Value>,
    lost: Vec<String>,
    wrong: Vec<String>,
}

impl Profile<'_> {
    fn wrong(&mut self, key: &str, why: &str) {
        self.wrong.push(format!("{}: {why}", dotted(self.place, key)));
    }

    fn put(&mut self, key: &str, value: Option<Value>) {
        self.spec.extend(value.map(|value| (key.to_owned(), value)));
    }

    fn attribute(&mut self, key: &str, value: &Value) {
        match key {
            "dLThptPerSlice" => self.rates("downlink", key, value),
            "uLThptPerSlice" => self.rates("uplink", key, value),
            "maxNumberofUEs" => self.number("maxNumberofUEs", key, value),
            "maxNumberofPDUSessions" => {
                let most = value.get("nOofPDUSessions").unwrap_or(value);
                self.number("maxNumberofPDUSessions", key, most);
            }
            "dLLatency" | "uLLatency" | "latency" => self.latency(key, value),
            "availability" => {
                let share = scaled(value, 10_000).and_then(|ppm| u32::try_from(ppm).ok());
                match share.and_then(Loss::from_ppm) {
                    Some(share) => self.put("availability", Some(share.to_string().into())),
                    None => self.wrong(key, "a percentage of time to four decimals is expected"),
                }
            }
            "resourceSharingLevel" => {
                match value.as_str().map(str::to_ascii_lowercase).as_deref() {
                    Some(word @ ("shared" | "non-shared")) => self.put(key, Some(word.into())),
                    _ => self.wrong(key, "SHARED or NON-SHARED is expected"),
                }
            }
            "sst" | "sST" => self.identity(key, &json!({ "sst": value })),
            "sNSSAIList" | "snssaiList" | "plmnInfoList" | "pLMNInfoList" => {
                for item in value.as_array().into_iter().flatten() {
                    self.identity(key, item.get("snssai").or(item.get("sNSSAI")).unwrap_or(item));
                    if let Some(plmn) = item.get("plmnId") {
                        self.lost.push(told(&dotted(self.place, key), "plmnId", plmn));
                    }
                }
            }
            // These are seen to with the endpoints.
            "dLThptPerUE" | "uLThptPerUE" => {}
            key if SATISFIED.contains(&key) => {}
            key => self.lost.push(told(self.place, key, value)),
        }
    }

    /// `guaThpt` and `maxThpt`, in kbit/s.
    fn rates(&mut self, to: &'static str, key: &str, value: &Value) {
        let rates = self.throughput(key, value);
        let Some(Value::Object(before)) = self.spec.get_mut(to) else {
            return self.put(to, Some(Value::Object(rates)).filter(|rates| *rates != json!({})));
        };
        before.extend(rates);
    }

    fn throughput(&mut self, key: &str, value: &Value) -> Map<String, Value> {
        let mut rates = Map::new();
        let Some(fields) = value.as_object() else {
            self.wrong(key, "{guaThpt, maxThpt} in kbit/s is expected");
            return rates;
        };
        for (name, value) in fields {
            let to = match name.as_str() {
                "guaThpt" => "guaranteed",
                "maxThpt" => "maximum",
                "servAttrCom" => continue,
                _ => {
                    self.lost.push(told(&dotted(self.place, key), name, value));
                    continue;
                }
            };
            match scaled(value, 1_000) {
                Some(bps) => rates.extend([(to.to_owned(), BitRate(bps).to_string().into())]),
                None => self.wrong(&dotted(key, name), "a rate in kbit/s is expected"),
            }
        }
        rates
    }

    fn number(&mut self, to: &'static str, key: &str, value: &Value) {
        match scaled(value, 1) {
            Some(number) => self.put(to, Some(number.into())),
            None => self.wrong(key, "a whole number is expected"),
        }
    }

    /// The lower of both directions' keeps both.
    fn latency(&mut self, key: &str, value: &Value) {
        let Some(us) = scaled(value, 1_000) else {
            return self.wrong(key, "a time in milliseconds is expected");
        };
        let before = self.spec.get("latency").and_then(Value::as_str);
        let before = before.and_then(|text| text.parse::<Delay>().ok());
        if before.is_some_and(|before| before.us() != us) {
            let place = dotted(self.place, key);
            self.lost.push(format!("{place}: one latency holds for both directions, the lower"));
        }
        let us = before.map_or(us, |before| before.us().min(us));
        self.put("latency", Some(Delay(us).to_string().into()));
    }

    /// An S-NSSAI; one without a differentiator says no more than its SST.
    fn identity(&mut self, key: &str, value: &Value) {
        let sst = value.get("sst").and_then(|sst| scaled(sst, 1));
        let Some(sst) = sst else { return self.wrong(key, "an S-NSSAI with an sst is expected") };
        let sd = value.get("sd").and_then(Value::as_str);
        let before = self.spec.get("sNssai");
        let same_sst = before.is_none_or(|before| before["sst"] == sst);
        let before_sd = before.and_then(|before| before["sd"].as_str());
        if !same_sst || (sd.is_some() && before_sd.is_some() && sd != before_sd) {
            return self.wrong(key, "a slice has one S-NSSAI, here are several");
        }
        let mut id = json!({ "sst": sst });
        if let Some(sd) = sd.or(before_sd) {
            id["sd"] = sd.into();
        }
        self.put("sNssai", Some(id));
    }

    /// Those of the vendor's data, else those given; with what the profile says of each UE.
    fn endpoints(&mut self, profile: &Map<String, Value>, given: &[(Side, NodeName)]) {
        if !self.spec.contains_key("endpoints") {
            let endpoint = |(side, name): &(Side, NodeName)| match side {
                Side::Ue => json!({ "ue": name.as_str() }),
                Side::Dn => json!({ "dn": name.as_str() }),
            };
            let endpoints: Vec<Value> = given.iter().map(endpoint).collect();
            if endpoints.is_empty() {
                self.wrong("", "TS 28.541 has no endpoints: state them, with --ue and --dn");
            }
            self.put("endpoints", Some(endpoints.into()));
        }
        for (key, to) in [("dLThptPerUE", "downlink"), ("uLThptPerUE", "uplink")] {
            let Some(value) = profile.get(key) else { continue };
            let rates = self.throughput(key, value);
            let endpoints = self.spec.get_mut("endpoints").and_then(Value::as_array_mut);
            for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
                if endpoint.contains_key("ue") && !endpoint.contains_key(to) && !rates.is_empty() {
                    endpoint.insert(to.to_owned(), Value::Object(rates.clone()));
                }
            }
        }
    }
}

fn dotted(place: &str, key: &str) -> String {
    match (place, key) {
        ("", _) => key.to_owned(),
        (_, "") => place.to_owned(),
        _ => format!("{place}.{key}"),
    }
}

fn told(place: &str, key: &str, value: &Value) -> String {
    format!("{}: {value}", dotted(place, key))
}

/// A number times `by`, if that is whole and not negative; also where it is written as a text.
fn scaled(value: &Value, by: u32) -> Option<u64> {
    let text = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let value = text.as_ref().unwrap_or(value);
    if let Some(whole) = value.as_u64() {
        return whole.checked_mul(by.into());
    }
    let scaled = value.as_f64()? * f64::from(by);
    let whole = scaled.round();
    // 2^53: above it a double does not tell neighbors apart.
    let sound = (scaled - whole).abs() < 1e-3 && (0.0..9_007_199_254_740_992.0).contains(&whole);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    sound.then_some(whole as u64)
}
