use selvedge_ebpf_common::map::PINNED;

use super::*;

#[test]
fn the_maps_are_those_that_are_specified() {
    for spec in PINNED {
        let def = named(spec.name);
        let found = (def.kind, def.key_bytes, def.value_bytes, def.entries);
        assert_eq!(
            found,
            (spec.kind, spec.key_bytes, spec.value_bytes, spec.entries),
            "{}",
            spec.name
        );
    }
    assert_eq!(NAMED.len(), PINNED.len());
}

fn prefix(bits: u32, data: [u8; 4]) -> Vec<u8> {
    let mut key = bits.to_ne_bytes().to_vec();
    key.extend(data);
    key.extend([0; 16]);
    key
}

#[test]
fn the_longest_prefix_is_found() {
    clear();
    let prefixes = [(0, [0; 4]), (8, [10, 0, 0, 0]), (13, [10, 8, 0, 0]), (32, [10, 8, 0, 1])];
    for (n, (bits, data)) in (1u8..).zip(prefixes) {
        put("ENDPOINT_PREFIX", &prefix(bits, data), &[n; 4]);
    }
    // (address, which)
    let cases = [([9, 0, 0, 0], 1), ([10, 0, 0, 0], 2), ([10, 15, 0, 1], 3), ([10, 8, 0, 1], 4)];
    for (data, want) in cases {
        assert_eq!(get("ENDPOINT_PREFIX", &prefix(160, data)), Some(vec![want; 4]), "{data:?}");
    }
    put("ENDPOINT_PREFIX", &prefix(13, [10, 15, 0, 0]), &[9; 4]);
    assert_eq!(get("ENDPOINT_PREFIX", &prefix(160, [10, 9, 0, 0])), Some(vec![9; 4]), "replaced");
    assert_eq!(get("ENDPOINT_PREFIX", &prefix(12, [10, 8, 0, 0])), Some(vec![2; 4]), "shorter");
}

#[test]
fn each_thread_has_its_own() {
    clear();
    put("CONFIG", &[0; 4], &[1; 40]);
    let other = std::thread::spawn(|| get("CONFIG", &[0; 4])).join().unwrap();
    assert_eq!((get("CONFIG", &[0; 4]), other), (Some(vec![1; 40]), Some(vec![0; 40])));
}

#[test]
fn nothing_counts_after_a_tail_call() {
    use selvedge_ebpf_common::drop;
    use selvedge_ebpf_common::value::{PORT_ACCESS, PortValue};

    clear();
    // An access port at interface 3: on to the stage, which drops a frame of no known type.
    put("PORT_BY_LOW_IFINDEX", &3u32.to_ne_bytes(), &1u32.to_ne_bytes());
    let port = PortValue { kind: PORT_ACCESS, ..PortValue::default() };
    let mut value = [0; 16];
    value[std::mem::offset_of!(PortValue, kind)] = port.kind;
    put("PORT", &1u32.to_ne_bytes(), &value);
    let ran = run("entry", 3, &[0x12; 60]);
    assert_eq!((ran.action, ran.tail_calls), (xdp_action::XDP_DROP, 1));
    let drops = |reason: u8| get("DROPS", &u32::from(reason).to_ne_bytes()).unwrap()[0];
    assert_eq!((drops(drop::UNSUPPORTED), drops(drop::PORT_DISABLED)), (1, 0));
}
