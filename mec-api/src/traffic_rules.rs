//! Traffic rules of application support (GS MEC 011 §7): an application's rules come from its
//! descriptor; by PUT it switches them on and off, or changes them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use selvedge_slices::rules::{self, FilterType, RuleAction, RuleState};
use selvedge_slices::{TrafficFilter, TrafficRule};
use selvedge_topology::yaml::Wrong;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::body::{InPath, RawBody, parse, unwrapped};
use crate::{Platform, PlatformError, ProblemDetails, known_application};

/// A traffic rule on the wire (GS MEC 011 §7.1.2.2). In a PUT, attributes that are left out
/// stay as they are (§7.2.8.3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRuleBody {
    pub traffic_rule_id: String,
    /// `FLOW` (both directions of a flow) or `PACKET`.
    pub filter_type: String,
    /// 0 is the highest, 255 the lowest.
    pub priority: u8,
    /// Any of them matches.
    pub traffic_filter: Vec<TrafficFilterBody>,
    /// `DROP` or `PASSTHROUGH`; the standard's other actions are refused with the reason.
    pub action: String,
    /// `ACTIVE` or `INACTIVE`.
    pub state: String,
}

/// The body of a PUT as the API's description has it: [`TrafficRuleBody`], nothing required.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "the names and types are what is read of it")]
struct TrafficRuleChange {
    /// If given: as in the path.
    traffic_rule_id: Option<String>,
    filter_type: Option<String>,
    priority: Option<u8>,
    traffic_filter: Option<Vec<TrafficFilterBody>>,
    action: Option<String>,
    state: Option<String>,
}

/// GS MEC 011 §7.1.5.2. Every attribute that is present has to match, by any of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficFilterBody {
    /// Addresses or prefixes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub src_address: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dst_address: Vec<String>,
    /// Ports or short ranges of them (`80-90`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub src_port: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dst_port: Vec<String>,
    /// Names (`UDP`) or IP protocol numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocol: Vec<String>,
    #[serde(rename = "dSCP", skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
}

impl From<&TrafficRule> for TrafficRuleBody {
    fn from(rule: &TrafficRule) -> Self {
        Self {
            traffic_rule_id: rule.id.clone(),
            filter_type: word(&FilterType::WORDS, rule.filter_type),
            priority: rule.priority,
            traffic_filter: rule.filters.iter().map(TrafficFilterBody::from).collect(),
            action: word(&RuleAction::WORDS, rule.action),
            state: word(&RuleState::WORDS, rule.state),
        }
    }
}

impl From<&TrafficFilter> for TrafficFilterBody {
    fn from(filter: &TrafficFilter) -> Self {
        fn texts<T: ToString>(values: &[T]) -> Vec<String> {
            values.iter().map(T::to_string).collect()
        }
        Self {
            src_address: texts(&filter.src_address),
            dst_address: texts(&filter.dst_address),
            src_port: filter.src_port.iter().copied().map(rules::ports_text).collect(),
            dst_port: filter.dst_port.iter().copied().map(rules::ports_text).collect(),
            protocol: texts(&filter.protocol),
            dscp: filter.dscp,
        }
    }
}

impl TryFrom<TrafficRuleBody> for TrafficRule {
    type Error = ProblemDetails;

    fn try_from(body: TrafficRuleBody) -> Result<Self, ProblemDetails> {
        let rule = Self {
            filter_type: from_word(&FilterType::WORDS, "filterType", &body.filter_type)?,
            priority: body.priority,
            filters: body
                .traffic_filter
                .into_iter()
                .enumerate()
                .map(|(at, filter)| filter.read(at))
                .collect::<Result<_, _>>()?,
            action: rules::action(&body.action).map_err(|wrong| bad("action", wrong))?,
            state: from_word(&RuleState::WORDS, "state", &body.state)?,
            id: body.traffic_rule_id,
        };
        rule.check().map_err(|error| ProblemDetails::bad_request(error.to_string()))?;
        Ok(rule)
    }
}

impl TrafficFilterBody {
    /// `at` is its place in the rule, for the error.
    fn read(self, at: usize) -> Result<TrafficFilter, ProblemDetails> {
        fn each<T>(
            at: usize,
            name: &str,
            texts: &[String],
            read: fn(&str) -> Result<T, Wrong>,
        ) -> Result<Vec<T>, ProblemDetails> {
            let place = |wrong| bad(&format!("trafficFilter[{at}].{name}"), wrong);
            texts.iter().map(|text| read(text).map_err(place)).collect()
        }
        if let Some(dscp) = self.dscp.filter(|dscp| *dscp > 63) {
            let detail = format!("trafficFilter[{at}].dSCP: {dscp} is above 63");
            return Err(ProblemDetails::bad_request(detail));
        }
        Ok(TrafficFilter {
            src_address: each(at, "srcAddress", &self.src_address, rules::address)?,
            dst_address: each(at, "dstAddress", &self.dst_address, rules::address)?,
            src_port: each(at, "srcPort", &self.src_port, rules::ports)?,
            dst_port: each(at, "dstPort", &self.dst_port, rules::ports)?,
            protocol: each(at, "protocol", &self.protocol, rules::protocol)?,
            dscp: self.dscp,
        })
    }
}

fn bad(place: &str, wrong: Wrong) -> ProblemDetails {
    let help = wrong.help.map(|help| format!("; {help}")).unwrap_or_default();
    ProblemDetails::bad_request(format!("{place}: {}{help}", wrong.message))
}

fn word<T: Copy + PartialEq>(words: &[(&str, T)], value: T) -> String {
    let (word, _) = words.iter().find(|(_, of)| *of == value).expect("every value has its word");
    (*word).to_owned()
}

fn from_word<T: Copy>(
    words: &[(&str, T)],
    attribute: &str,
    text: &str,
) -> Result<T, ProblemDetails> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let offered: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let offered = offered.join(", ");
        ProblemDetails::bad_request(format!("{attribute}: {text:?} is not one of {offered}"))
    })
}

pub(crate) fn router<P: Platform>() -> Router<Arc<P>> {
    Router::new().route("/applications/{app_instance_id}/traffic_rules", get(list::<P>)).route(
        "/applications/{app_instance_id}/traffic_rules/{traffic_rule_id}",
        get(read::<P>).put(update::<P>),
    )
}

/// The rules of one application instance (GS MEC 011 §7.2.7.3.1).
#[utoipa::path(
    get, path = "/mec_app_support/v1/applications/{app_instance_id}/traffic_rules", tag = "mec", operation_id = "ApplicationsTrafficRulesGET",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
    ),
    responses(
        (status = 200, description = "The rules, as its descriptor orders them", body = Vec<TrafficRuleBody>),
        (status = 404, description = "There is no such application instance", body = ProblemDetails),
        (status = 503, description = "The platform cannot answer at present; the detail says why", body = ProblemDetails),
        (status = 504, description = "Not answered in time", body = ProblemDetails),
    )
)]
pub(crate) async fn list<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath(application): InPath<String>,
) -> Result<Json<Vec<TrafficRuleBody>>, ProblemDetails> {
    known_application(&*platform, &application).await?;
    let rules = platform.traffic_rules(&application).await?;
    Ok(Json(rules.iter().map(TrafficRuleBody::from).collect()))
}

/// One rule (GS MEC 011 §7.2.8.3.1).
#[utoipa::path(
    get, path = "/mec_app_support/v1/applications/{app_instance_id}/traffic_rules/{traffic_rule_id}", tag = "mec", operation_id = "ApplicationsTrafficRuleGET",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
        ("traffic_rule_id" = String, Path, description = "`trafficRuleId`"),
    ),
    responses(
        (
            status = 200, description = "The rule", body = TrafficRuleBody,
            headers(("ETag" = String, description = "For `If-Match`"))
        ),
        (status = 404, description = "There is no such application instance or rule", body = ProblemDetails),
        (status = 503, description = "The platform cannot answer at present; the detail says why", body = ProblemDetails),
        (status = 504, description = "Not answered in time", body = ProblemDetails),
    )
)]
pub(crate) async fn read<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath((application, rule_id)): InPath<(String, String)>,
) -> Result<Response, ProblemDetails> {
    Ok(answer(&find(&*platform, &application, &rule_id).await?))
}

/// Switches a rule on or off, or changes it: attributes that are left out stay as they are
/// (GS MEC 011 §7.2.8.3.2). The body may be wrapped in `TrafficRule`.
#[utoipa::path(
    put, path = "/mec_app_support/v1/applications/{app_instance_id}/traffic_rules/{traffic_rule_id}", tag = "mec", operation_id = "ApplicationsTrafficRulePUT",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
        ("traffic_rule_id" = String, Path, description = "`trafficRuleId`"),
        ("If-Match" = Option<String>, Header, description = "Only if the rule still has this entity tag"),
    ),
    request_body = TrafficRuleChange,
    responses(
        (
            status = 200, description = "The rule as it is now", body = TrafficRuleBody,
            headers(("ETag" = String, description = "For `If-Match`"))
        ),
        (status = 400, description = "The request is wrong: the detail names the attribute or parameter", body = ProblemDetails),
        (status = 404, description = "There is no such application instance or rule", body = ProblemDetails),
        (status = 409, description = "Refused: the detail says what stands against it", body = ProblemDetails),
        (status = 412, description = "The rule is not the one that `If-Match` names, or changed meanwhile", body = ProblemDetails),
        (status = 413, description = "The body is larger than 64 KiB", body = ProblemDetails),
        (status = 415, description = "The body is not JSON", body = ProblemDetails),
        (status = 503, description = "The platform cannot take it: its store is full or read-only", body = ProblemDetails),
        (status = 504, description = "Not answered in time; it may yet be carried out", body = ProblemDetails),
    )
)]
pub(crate) async fn update<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath((application, rule_id)): InPath<(String, String)>,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Response, ProblemDetails> {
    let changes = unwrapped(body, "TrafficRule")?;
    let old = find(&*platform, &application, &rule_id).await?;
    if let Some(expected) = headers.get(header::IF_MATCH)
        && expected != "*"
        && expected != etag(&old)
    {
        let detail = format!("traffic rule {rule_id:?} is not the one that If-Match names");
        return Err(ProblemDetails::new(StatusCode::PRECONDITION_FAILED, detail));
    }
    let new = merged(&old, changes)?;
    if new.id != old.id {
        let detail = format!("trafficRuleId: {:?} cannot become {:?}", old.id, new.id);
        return Err(ProblemDetails::bad_request(detail));
    }
    platform.replace_traffic_rule(&application, old, new.clone()).await?;
    Ok(answer(&new))
}

/// `old` with the attributes that `changes` has.
fn merged(old: &TrafficRule, changes: Value) -> Result<TrafficRule, ProblemDetails> {
    let Value::Object(changes) = changes else {
        return Err(ProblemDetails::bad_request("the body is not an object"));
    };
    let unmatched = changes.get("trafficFilter").and_then(Value::as_array).into_iter().flatten();
    for (at, filter) in unmatched.enumerate() {
        for (name, why) in rules::NOT_MATCHED {
            if filter.get(name).is_some() {
                let detail = format!("trafficFilter[{at}].{name}: not offered, {why}");
                return Err(ProblemDetails::bad_request(detail));
            }
        }
    }
    if changes.contains_key("dstInterface") {
        let detail = "dstInterface: not offered, packets go to their destination or nowhere";
        return Err(ProblemDetails::bad_request(detail));
    }
    let mut whole = fields(old);
    whole.extend(changes);
    let body: TrafficRuleBody = parse(Value::Object(whole), "TrafficRule")?;
    body.try_into()
}

fn fields(rule: &TrafficRule) -> Map<String, Value> {
    match serde_json::to_value(TrafficRuleBody::from(rule)) {
        Ok(Value::Object(fields)) => fields,
        other => unreachable!("a struct of strings and numbers is an object: {other:?}"),
    }
}

fn answer(rule: &TrafficRule) -> Response {
    ([(header::ETAG, etag(rule))], Json(TrafficRuleBody::from(rule))).into_response()
}

/// An entity tag of the rule's content (RFC 9110 §8.8.3): FNV-1a over its JSON.
fn etag(rule: &TrafficRule) -> HeaderValue {
    let text = Value::Object(fields(rule)).to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    HeaderValue::from_str(&format!("\"{hash:016x}\"")).expect("hexadecimal digits in quotes")
}

async fn find<P: Platform>(
    platform: &P,
    application: &str,
    rule_id: &str,
) -> Result<TrafficRule, ProblemDetails> {
    known_application(platform, application).await?;
    let rules = platform.traffic_rules(application).await?;
    rules.into_iter().find(|rule| rule.id == rule_id).ok_or_else(|| {
        PlatformError::NotFound { kind: "traffic rule", name: rule_id.to_owned() }.into()
    })
}
