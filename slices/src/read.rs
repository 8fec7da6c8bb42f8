//! Multi-document YAML of objects (DESIGN §11), checked in one go.

mod demand;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use selvedge_topology::yaml::{self, Decoder, Fields, Value, Wrong};
use selvedge_topology::{BitRate, Bytes, Delay, Problem, Problems};

use crate::class::{self, Class, ClassReason};
use crate::class_map::OPERATOR_FIVE_QIS;
use crate::limits::{
    MAX_BURST_BYTES, MAX_CONFIG_BYTES, MAX_FILE_BYTES, MAX_FUEL, MAX_LATENCY_US, MAX_MAXIMUM,
    MAX_MEMORY_BYTES, MAX_PATH_BYTES, MAX_PRIORITY, MAX_RATE_BPS, MAX_RULES, MAX_THROUGH,
    MIN_LATENCY_US, MIN_MEMORY_BYTES, MIN_RATE_BPS, MTU_BYTES,
};
use crate::rules::{self, FilterType, RuleState};
use crate::template::{Attribute, FromTemplate, Template};
use crate::{
    Application, Availability, Hook, NetworkSlice, Object, ObjectKind, ObjectName, OnFailure,
    Rates, ResourceSharingLevel, Snssai, Through, TrafficFilter, TrafficRule,
};

mod class_map;
mod endpoints;
mod schedule;
mod session;

/// `apiVersion` of every object.
pub(crate) const API_VERSION: &str = "selvedge/v1";

/// Reads and checks a file of objects: what is in it, or everything that is wrong with it.
pub fn check(path: &Path) -> Result<Vec<Object>, miette::Report> {
    let text = selvedge_topology::read::text_of(path, MAX_FILE_BYTES)?;
    Ok(parse(&path.display().to_string(), &text)?)
}

/// `file` is for messages only.
pub fn parse(file: &str, text: &str) -> Result<Vec<Object>, Problems> {
    Ok(parse_lines(file, text)?.into_iter().map(|(_, object)| object).collect())
}

/// As [`parse`]; beside each object the line of its name, from 1.
pub fn parse_lines(file: &str, text: &str) -> Result<Vec<(usize, Object)>, Problems> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("is larger than {MAX_FILE_BYTES} bytes, the limit");
        return Err(Problems::of_file(file, message, None));
    }
    let documents = yaml::documents(text);
    let mut reader = Reader { d: Decoder { problems: documents.problems } };
    if documents.values.is_empty() && reader.d.problems.is_empty() {
        reader.d.problem(Problem::new(0..0, "there is no object in this file"));
    }
    let mut first: HashMap<(ObjectKind, ObjectName), Range<usize>> = HashMap::new();
    let mut objects = Vec::new();
    for document in &documents.values {
        let Some((object, span)) = reader.object(document) else { continue };
        let (kind, name) = (object.kind(), object.name().clone());
        if let Some(first) = first.insert((kind, name.clone()), span.clone()) {
            let problem = Problem::new(span.clone(), format!("{kind} {name} is here twice"));
            reader.d.problem(problem.label("again here").also(first, "first here"));
        }
        let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        objects.push((line, object));
    }
    if reader.d.problems.is_empty() {
        Ok(objects)
    } else {
        Err(Problems::new(file, text, reader.d.problems))
    }
}

fn is_newer(version: &str) -> bool {
    let number = version.strip_prefix("selvedge/v").and_then(|number| number.parse::<u32>().ok());
    number.is_some_and(|number| number > 1)
}

struct Reader {
    d: Decoder,
}

impl Reader {
    /// The object and the place of its name.
    fn object(&mut self, document: &Value) -> Option<(Object, Range<usize>)> {
        let mut top = self.d.fields(document, "an object")?;
        if top.key("topology").is_some() {
            let span = top.key("topology")?;
            let problem = Problem::new(span, "this is a topology, not an object");
            self.d.problem(
                problem.help("a topology is given to `selvedge lab`, `controller` and `path`"),
            );
            return None;
        }
        let version = top.required(&mut self.d, "apiVersion");
        if let Some(value) = version
            && let Some(newer) = self.d.text(value, "a version").filter(|text| is_newer(text))
        {
            // What else it has may be right there.
            let message =
                format!("{newer:?} is for a newer Selvedge; this one knows {API_VERSION:?}");
            let help = "run a newer one, or write the object for this one";
            self.d.problem(Problem::new(value.span.clone(), message).help(help));
            return None;
        }
        if let Some(value) = version {
            self.d.choice(value, "a version that is known", &[(API_VERSION, ())]);
        }
        let kinds = ObjectKind::ALL.map(|kind| (kind.as_str(), kind));
        let kind = top.required(&mut self.d, "kind");
        let kind = kind.and_then(|value| self.d.choice(value, "a kind of object", &kinds));
        let metadata = top.required(&mut self.d, "metadata");
        let name = metadata.and_then(|value| self.name(value, kind));
        let spec = top.required(&mut self.d, "spec");
        top.finish(&mut self.d);
        let spec = self.d.fields(spec?, "a spec");
        // A spec is checked even if its object has no valid name.
        let (name, span) = match name {
            Some((name, span)) => (Some(name), span),
            None => (None, 0..0),
        };
        let named = name.clone().unwrap_or_else(|| "unnamed".parse().expect("a valid name"));
        let object = match kind? {
            ObjectKind::NetworkSlice => self.slice(named, spec?).map(Object::NetworkSlice),
            ObjectKind::Hook => self.hook(named, spec?).map(Object::Hook),
            ObjectKind::Application => self.application(named, spec?).map(Object::Application),
            ObjectKind::ClassMap => Some(Object::ClassMap(self.class_map(named, spec?))),
            ObjectKind::PduSession => self.session(named, spec?).map(Object::PduSession),
        };
        name?;
        Some((object?, span))
    }

    fn name(
        &mut self,
        metadata: &Value,
        kind: Option<ObjectKind>,
    ) -> Option<(ObjectName, Range<usize>)> {
        let mut fields = self.d.fields(metadata, "metadata")?;
        let value = fields.required(&mut self.d, "name");
        fields.finish(&mut self.d);
        let value = value?;
        let name: ObjectName = self.d.parse(value, "the object's name")?;
        if kind == Some(ObjectKind::NetworkSlice) && name.as_str() == ObjectName::DEFAULT_SLICE {
            let message = "\"default\" is the slice of endpoints that no slice names";
            self.d.problem(Problem::new(value.span.clone(), message).label("taken"));
            return None;
        }
        Some((name, value.span.clone()))
    }

    fn slice(&mut self, name: ObjectName, mut spec: Fields<'_>) -> Option<NetworkSlice> {
        let template = spec.optional("template");
        let template = template.and_then(|v| self.d.choice(v, "a template", &Template::WORDS));
        let mut filled = Vec::new();
        let s_nssai = self.identity(spec.optional("sNssai"), template, &mut filled);
        let five_qi = spec.optional("5qi").map(|value| self.five_qi(value));
        let words = Class::ALL.map(|class| (class.as_str(), class));
        let class_value = spec.optional("class");
        let stated = class_value.and_then(|value| self.d.choice(value, "a class", &words));
        let priority = spec.optional("priority");
        let priority = priority.and_then(|v| self.d.integer(v, "a priority", 0..=MAX_PRIORITY));
        let downlink = spec.optional("downlink").map(|v| self.rates(v, "downlink"));
        let uplink = spec.optional("uplink").map(|v| self.rates(v, "uplink"));
        let latency = spec.optional("latency").map(|value| {
            let range = Delay(MIN_LATENCY_US)..=Delay(MAX_LATENCY_US);
            self.d.parse_in(value, "a latency", range)
        });
        let availability = spec.optional("availability").and_then(|value| self.availability(value));
        let level = spec.optional("resourceSharingLevel").and_then(|value| {
            self.d.choice(value, "a resource sharing level", &ResourceSharingLevel::WORDS)
        });
        let max_ues = self.maximum(spec.optional("maxNumberofUEs"));
        let max_pdu_sessions = self.maximum(spec.optional("maxNumberofPDUSessions"));
        let schedule = spec.optional("schedule").and_then(|value| self.schedule(value));
        let endpoints_value = spec.required(&mut self.d, "endpoints");
        let through = spec.optional("through").map(|v| self.through(v)).unwrap_or_default();
        let defaults = template.map(Template::defaults);
        let five_qi = five_qi.unwrap_or_else(|| {
            filled.extend(template.map(|_| Attribute::FiveQi));
            defaults.map(|defaults| defaults.five_qi)
        });
        let latency = latency.unwrap_or_else(|| {
            let latency = defaults.and_then(|defaults| defaults.latency);
            filled.extend(latency.map(|_| Attribute::Latency));
            latency
        });
        let mut slice = NetworkSlice {
            name,
            template: template.map(|template| FromTemplate { template, filled }),
            s_nssai,
            five_qi,
            class: stated.unwrap_or(Class::BestEffort),
            class_reason: stated.map_or(ClassReason::Nothing, |_| ClassReason::Stated),
            priority: priority.map_or(0, |n| u8::try_from(n).expect("bounded above")),
            downlink: downlink.unwrap_or_default(),
            uplink: uplink.unwrap_or_default(),
            latency,
            availability,
            resource_sharing_level: level.unwrap_or_default(),
            max_ues,
            max_pdu_sessions,
            schedule,
            endpoints: Vec::new(),
            through,
        };
        if let Some(value) = endpoints_value {
            slice.endpoints = self.endpoints(value, &slice);
        }
        spec.finish(&mut self.d);
        slice.classify(None);
        self.class_fits(&slice, class_value);
        Some(slice)
    }

    /// A class that was stated goes with the slice's rates.
    fn class_fits(&mut self, slice: &NetworkSlice, class: Option<&Value>) {
        let Some(value) = class.filter(|_| slice.class_reason == ClassReason::Stated) else {
            return;
        };
        let has_guarantee = slice.downlink.guaranteed.or(slice.uplink.guaranteed).is_some();
        let clash = match (slice.class, has_guarantee) {
            (Class::BestEffort, true) => "best effort is promised no rate",
            (Class::Guaranteed, false) => "nothing is guaranteed here",
            _ => return,
        };
        let message = format!("class {} does not go with the slice's rates", slice.class);
        self.d.problem(Problem::new(value.span.clone(), message).label(clash));
    }

    fn maximum(&mut self, value: Option<&Value>) -> Option<u32> {
        let number = self.d.integer(value?, "a maximum", 1..=MAX_MAXIMUM)?;
        Some(u32::try_from(number).expect("bounded above"))
    }

    /// `sNssai`, its SST from the template where it is not stated.
    fn identity(
        &mut self,
        value: Option<&Value>,
        template: Option<Template>,
        filled: &mut Vec<Attribute>,
    ) -> Option<Snssai> {
        let default = template.map(|template| template.defaults().sst);
        let Some(value) = value else {
            filled.extend(default.map(|_| Attribute::Sst));
            return default.and_then(|sst| Snssai::new(sst, None).ok());
        };
        let states_sst = matches!(&value.kind, yaml::Kind::Mapping(entries)
            if entries.iter().any(|(key, _)| key.text == "sst"));
        filled.extend(default.filter(|_| !states_sst).map(|_| Attribute::Sst));
        self.snssai(value, default.filter(|_| !states_sst))
    }

    fn snssai(&mut self, value: &Value, default: Option<u8>) -> Option<Snssai> {
        let mut fields = self.d.fields(value, "sNssai")?;
        let sst = match default {
            Some(sst) => Some(u64::from(sst)),
            None => fields
                .required(&mut self.d, "sst")
                .and_then(|value| self.d.integer(value, "a slice/service type", 0..=255)),
        };
        let sd = fields.optional("sd").map(|value| {
            self.d.parse_with(value, "a slice differentiator", |text| {
                Snssai::new(0, Some(text)).map(|_| text.to_owned()).map_err(|error| Wrong {
                    message: error.to_string(),
                    help: (text.len() < 6 && text.bytes().all(|b| b.is_ascii_hexdigit()))
                        .then(|| format!("did you mean \"{text:0>6}\"?")),
                })
            })
        });
        fields.finish(&mut self.d);
        let sst = u8::try_from(sst?).expect("bounded above");
        match sd {
            None => Snssai::new(sst, None).ok(),
            Some(sd) => Snssai::new(sst, Some(&sd?)).ok(),
        }
    }

    fn five_qi(&mut self, value: &Value) -> Option<u8> {
        let number = self.d.integer(value, "a 5QI", 1..=255)?;
        let number = u8::try_from(number).expect("bounded above");
        if class::of_five_qi(number).is_none() && !OPERATOR_FIVE_QIS.contains(&number) {
            let message = format!("{number} is not a standardized 5QI");
            let problem = Problem::new(value.span.clone(), message).label("a 5QI");
            self.d.problem(problem.help("see 3GPP TS 23.501, table 5.7.4-1; or state a class"));
            return None;
        }
        Some(number)
    }

    fn rates(&mut self, value: &Value, what: &'static str) -> Rates {
        let Some(mut fields) = self.d.fields(value, what) else { return Rates::default() };
        let range = || BitRate(MIN_RATE_BPS)..=BitRate(MAX_RATE_BPS);
        let guaranteed = fields.optional("guaranteed");
        let guaranteed = guaranteed.and_then(|v| self.d.parse_in(v, "a guaranteed rate", range()));
        let maximum_value = fields.optional("maximum");
        let maximum = maximum_value.and_then(|v| self.d.parse_in(v, "a maximum rate", range()));
        let burst_value = fields.optional("burst");
        let burst = burst_value.and_then(|value| {
            self.d.parse_in(value, "a burst", Bytes(MTU_BYTES)..=Bytes(MAX_BURST_BYTES))
        });
        if let (Some(guaranteed), Some(maximum), Some(value)) = (guaranteed, maximum, maximum_value)
            && maximum < guaranteed
        {
            let message = format!("the maximum {maximum} is below the guaranteed {guaranteed}");
            self.d.problem(Problem::new(value.span.clone(), message).label("too small"));
        }
        if let (None, None, Some(value)) =
            (fields.optional("guaranteed"), fields.optional("maximum"), burst_value)
        {
            let message = "a burst goes with a guaranteed or maximum rate";
            self.d.problem(Problem::new(value.span.clone(), message).label("no rate here"));
        }
        fields.finish(&mut self.d);
        Rates { guaranteed, maximum, burst }
    }

    fn availability(&mut self, value: &Value) -> Option<Availability> {
        self.d.parse_with(value, "an availability", |text| {
            let percent = text.strip_suffix('%').unwrap_or(text);
            let loss = format!("{percent}%").parse::<selvedge_topology::Loss>();
            match loss {
                Ok(share) if share.ppm() > 0 => Ok(Availability(share.ppm())),
                _ => Err(Wrong::new(format!(
                    "{text:?} is not a percentage of time such as 99.99, to four decimals"
                ))),
            }
        })
    }

    fn through(&mut self, value: &Value) -> Vec<Through> {
        let items = self.d.items(value, "through");
        if items.len() > MAX_THROUGH {
            let message = format!("a path goes through at most {MAX_THROUGH} hooks");
            let problem = Problem::new(items[MAX_THROUGH].span.clone(), message);
            self.d.problem(problem.help("a packet carries six ids: two a hook, two the end"));
        }
        let mut through: Vec<Through> = Vec::new();
        for item in items {
            let Some(mut fields) = self.d.fields(item, "a hook on the path") else { continue };
            let hook_value = fields.required(&mut self.d, "hook");
            let hook = hook_value.and_then(|v| self.d.parse::<ObjectName>(v, "a hook's name"));
            let words = [("bypass", OnFailure::Bypass), ("drop", OnFailure::Drop)];
            let on_failure = fields.required(&mut self.d, "onFailure");
            let on_failure = on_failure
                .and_then(|value| self.d.choice(value, "what happens when it fails", &words));
            fields.finish(&mut self.d);
            let (Some(hook), Some(on_failure)) = (hook, on_failure) else { continue };
            if through.iter().any(|earlier| earlier.hook == hook) {
                let span = hook_value.map_or(item.span.clone(), |value| value.span.clone());
                self.d.problem(Problem::new(span, format!("hook {hook} is here twice")));
                continue;
            }
            through.push(Through { hook, on_failure });
        }
        through
    }

    fn hook(&mut self, name: ObjectName, mut spec: Fields<'_>) -> Option<Hook> {
        let module = spec.required(&mut self.d, "module").and_then(|value| {
            let text = self.d.text(value, "a module's path")?;
            if text.is_empty() || text.len() > MAX_PATH_BYTES || text.contains('\0') {
                let message = format!("a module is a path of 1 to {MAX_PATH_BYTES} bytes");
                self.d.problem(Problem::new(value.span.clone(), message));
            }
            Some(text.to_owned())
        });
        let config = spec.optional("config").and_then(|value| {
            let text = self.d.text(value, "a hook's configuration")?;
            if text.len() > MAX_CONFIG_BYTES {
                let message = format!("a configuration has at most {MAX_CONFIG_BYTES} bytes");
                self.d.problem(Problem::new(value.span.start..value.span.start + 40, message));
            }
            Some(text.to_owned())
        });
        let fuel = spec.optional("fuelPerPacket");
        let fuel = fuel.and_then(|value| self.d.integer(value, "fuel per packet", 1..=MAX_FUEL));
        let memory = spec.optional("memory").and_then(|value| {
            let range = Bytes(MIN_MEMORY_BYTES)..=Bytes(MAX_MEMORY_BYTES);
            self.d.parse_in(value, "a hook's memory", range)
        });
        spec.finish(&mut self.d);
        Some(Hook {
            name,
            module: module?,
            config: config.unwrap_or_default(),
            fuel_per_packet: fuel.unwrap_or(Hook::DEFAULT_FUEL),
            memory: memory.unwrap_or(Hook::DEFAULT_MEMORY),
        })
    }

    fn application(&mut self, name: ObjectName, mut spec: Fields<'_>) -> Option<Application> {
        let endpoint = spec.required(&mut self.d, "endpoint");
        let endpoint = endpoint.and_then(|value| self.d.parse(value, "an endpoint's name"));
        let demand = self.demand(&mut spec);
        let mut traffic_rules = Vec::new();
        if let Some(value) = spec.optional("trafficRules") {
            let items = self.d.items(value, "trafficRules");
            if items.len() > MAX_RULES {
                let message = format!("an application has at most {MAX_RULES} traffic rules");
                self.d.problem(Problem::new(items[MAX_RULES].span.clone(), message));
            }
            let mut ids = BTreeSet::new();
            for item in items {
                let Some((rule, span)) = self.rule(item) else { continue };
                if !ids.insert(rule.id.clone()) {
                    let message = format!("traffic rule {:?} is here twice", rule.id);
                    self.d.problem(Problem::new(span, message).label("again here"));
                }
                traffic_rules.push(rule);
            }
        }
        spec.finish(&mut self.d);
        Some(Application { name, endpoint: endpoint?, demand, traffic_rules })
    }

    fn rule(&mut self, value: &Value) -> Option<(TrafficRule, Range<usize>)> {
        let mut fields = self.d.fields(value, "a traffic rule")?;
        let id_value = fields.required(&mut self.d, "trafficRuleId");
        let id = id_value.and_then(|value| self.d.text(value, "a traffic rule's id"));
        let filter_type = fields.required(&mut self.d, "filterType");
        let filter_type =
            filter_type.and_then(|v| self.d.choice(v, "a filter type", &FilterType::WORDS));
        let priority = fields.required(&mut self.d, "priority");
        let priority = priority.and_then(|v| self.d.integer(v, "a priority", 0..=255));
        let filters = fields.required(&mut self.d, "trafficFilter");
        let filters: Option<Vec<TrafficFilter>> = filters.and_then(|value| {
            let items = self.d.items(value, "trafficFilter");
            items.iter().map(|item| self.filter(item)).collect()
        });
        let action = fields.required(&mut self.d, "action");
        let action = action.and_then(|v| self.d.parse_with(v, "an action", rules::action));
        // A descriptor has no state (MEC 010-2): the application switches its rules on.
        let state = match fields.optional("state") {
            None => Some(RuleState::Inactive),
            Some(value) => self.d.choice(value, "a state", &RuleState::WORDS),
        };
        fields.deny("dstInterface", "packets go to their destination or nowhere");
        let span = id_value.map_or(fields.span.clone(), |value| value.span.clone());
        fields.finish(&mut self.d);
        let rule = TrafficRule {
            id: id?.to_owned(),
            filter_type: filter_type?,
            priority: u8::try_from(priority?).expect("bounded above"),
            filters: filters?,
            action: action?,
            state: state?,
        };
        if let Err(error) = rule.check() {
            self.d.problem(Problem::new(span, error.to_string()).label("of this rule"));
            return None;
        }
        Some((rule, span))
    }

    fn filter(&mut self, value: &Value) -> Option<TrafficFilter> {
        let mut fields = self.d.fields(value, "a traffic filter")?;
        let before = self.d.problems.len();
        let mut addresses = |fields: &mut Fields<'_>, key, what| {
            let items = fields.optional(key).map(|v| self.d.items(v, what)).unwrap_or_default();
            items.iter().filter_map(|v| self.d.parse_with(v, what, rules::address)).collect()
        };
        let src_address = addresses(&mut fields, "srcAddress", "a source address");
        let dst_address = addresses(&mut fields, "dstAddress", "a destination address");
        let mut ports = |fields: &mut Fields<'_>, key, what| -> Vec<[u16; 2]> {
            let items = fields.optional(key).map(|v| self.d.items(v, what)).unwrap_or_default();
            items.iter().filter_map(|v| self.d.parse_with(v, what, rules::ports)).collect()
        };
        let src_port = ports(&mut fields, "srcPort", "a source port");
        let dst_port = ports(&mut fields, "dstPort", "a destination port");
        let protocol = fields.optional("protocol");
        let protocol = protocol.map(|v| self.d.items(v, "protocol")).unwrap_or_default();
        let parse = |v| self.d.parse_with(v, "a protocol", rules::protocol);
        let protocol = protocol.iter().filter_map(parse).collect();
        let dscp = fields.optional("dSCP").and_then(|v| self.d.integer(v, "a DSCP", 0..=63));
        for (name, why) in rules::NOT_MATCHED {
            fields.deny(name, why);
        }
        fields.finish(&mut self.d);
        let dscp = dscp.map(|n| u8::try_from(n).expect("bounded above"));
        let filter = TrafficFilter { src_address, dst_address, src_port, dst_port, protocol, dscp };
        (self.d.problems.len() == before).then_some(filter)
    }
}
