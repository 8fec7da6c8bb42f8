//! What a switch measured, checked and turned into the core's words.

use selvedge_core::{Counted, LinkCount, Measured, SliceCount, Traffic};
use selvedge_pipeline::delay::{BUCKETS, Delays};
use selvedge_pipeline::{Direction, DropReason, HookId, SliceId};
use selvedge_southbound::selvedge::v1;

use super::message::{BadMessage, bad, port_id};

/// Ports and compute ports that a switch can have.
const MAX_LINKS: usize = 512;
/// Slices in one message; more come in further messages.
const MAX_SLICES: usize = 1024;
/// The compute port of hook 0 (session.proto, `LinkCount`).
const FIRST_COMPUTE_PORT: u32 = 256;

pub(super) fn measured(message: v1::Telemetry) -> Result<Measured, BadMessage> {
    let v1::Telemetry { second, exact, interval_ms, links, slices, last, at_ms } = message;
    for (field, length, most) in [
        ("telemetry.links", links.len(), MAX_LINKS),
        ("telemetry.slices", slices.len(), MAX_SLICES),
    ] {
        if length > most {
            return bad(field, format!("{length} are too many, at most {most}"));
        }
    }
    Ok(Measured {
        second,
        at_ms,
        exact,
        interval_ms,
        links: links.into_iter().map(link).collect::<Result<_, _>>()?,
        slices: slices.into_iter().map(slice).collect::<Result<_, _>>()?,
        last,
    })
}

fn link(message: v1::LinkCount) -> Result<LinkCount, BadMessage> {
    let v1::LinkCount { port, probes, answered, delay_ns, delay_max_ns, sent, received, .. } =
        message;
    let at = match port.checked_sub(FIRST_COMPUTE_PORT) {
        None => Counted::Port(port_id("telemetry.link.port", port)?),
        Some(hook @ 0..=255) => Counted::Hook(HookId(hook as u16)),
        Some(_) => return bad("telemetry.link.port", format!("{port} is no port, 1 to 511")),
    };
    if answered > probes {
        let problem = format!("{answered} answers to {probes} test packets");
        return bad("telemetry.link.answered", problem);
    }
    let mut delays = Delays::default();
    for v1::DelayCount { bucket, count } in message.delays {
        if bucket >= BUCKETS {
            let problem = format!("bucket {bucket} is not below {BUCKETS}");
            return bad("telemetry.link.delays", problem);
        }
        delays.add(bucket, count.into());
    }
    Ok(LinkCount {
        at,
        probes,
        answered,
        delay_ns,
        delay_max_ns,
        delays,
        sent,
        received,
        came: Traffic { packets: message.in_packets, bytes: message.in_bytes },
        left: Traffic { packets: message.out_packets, bytes: message.out_bytes },
    })
}

fn slice(message: v1::SliceCount) -> Result<SliceCount, BadMessage> {
    let direction = match message.direction {
        0 => Direction::Downlink,
        1 => Direction::Uplink,
        other => return bad("telemetry.slice.direction", format!("{other} is neither 0 nor 1")),
    };
    let Ok(id) = message.slice.try_into() else {
        let problem = format!("{} is not a slice's number", message.slice);
        return bad("telemetry.slice.slice", problem);
    };
    let known = DropReason::ALL.into_iter();
    let reason = known.clone().find(|reason| *reason as u32 == message.lost_reason);
    Ok(SliceCount {
        slice: SliceId(id),
        direction,
        in_bytes: message.in_bytes,
        delivered_bytes: message.delivered_bytes,
        entered: message.entered,
        left: message.left,
        lost: message.lost,
        lost_reason: reason.filter(|_| message.lost > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_by_its_field() {
        let link = |port, probes, answered| v1::Telemetry {
            links: vec![v1::LinkCount { port, probes, answered, ..Default::default() }],
            ..Default::default()
        };
        let slice = |slice, direction| v1::Telemetry {
            slices: vec![v1::SliceCount { slice, direction, ..Default::default() }],
            ..Default::default()
        };
        let delays = |bucket| v1::Telemetry {
            links: vec![v1::LinkCount {
                port: 1,
                delays: vec![v1::DelayCount { bucket, count: 1 }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let crowd = v1::Telemetry {
            slices: vec![v1::SliceCount::default(); MAX_SLICES + 1],
            ..Default::default()
        };
        // (message, the field refused; `None`: accepted)
        let cases = [
            (link(1, 10, 10), None),
            (link(255, 0, 0), None),
            (link(256, 0, 0), None),
            (link(511, 0, 0), None),
            (link(0, 0, 0), Some("telemetry.link.port")),
            (link(512, 0, 0), Some("telemetry.link.port")),
            (link(u32::MAX, 0, 0), Some("telemetry.link.port")),
            (link(1, 3, 4), Some("telemetry.link.answered")),
            (delays(239), None),
            (delays(240), Some("telemetry.link.delays")),
            (slice(4095, 1), None),
            (slice(1, 2), Some("telemetry.slice.direction")),
            (slice(u32::MAX, 1), Some("telemetry.slice.slice")),
            (crowd, Some("telemetry.slices")),
        ];
        for (message, want) in cases {
            let got = measured(message.clone()).err().map(|bad| bad.field);
            assert_eq!(got, want, "{:?} {:?}", message.links.first(), message.slices.first());
        }
        let hook = measured(link(259, 0, 0)).unwrap().links;
        assert_eq!(hook[0].at, Counted::Hook(HookId(3)));
    }

    #[test]
    fn a_reason_is_of_packets_that_were_lost() {
        let slice = |lost, lost_reason| v1::SliceCount {
            lost,
            lost_reason,
            slice: 1,
            ..Default::default()
        };
        for (lost, number, want) in [
            (1, 13, Some(DropReason::QueueFull)),
            (0, 13, None),
            (1, 999, None), // of a later version
        ] {
            let message = v1::Telemetry { slices: vec![slice(lost, number)], ..Default::default() };
            assert_eq!(measured(message).unwrap().slices[0].lost_reason, want, "{lost} {number}");
        }
    }
}
