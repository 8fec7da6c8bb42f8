//! Messages of protobuf.

use prost::Message;
use selvedge_southbound::convert;
use selvedge_southbound::p4::v1::TableEntry;
use selvedge_southbound::selvedge::v1::{FromHost, FromSwitch, ToHost, ToSwitch};

/// What an agent and its Wasm host, and a switch and its controller say: the first byte chooses.
pub(crate) fn compute(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => message::<ToHost>(bytes),
        1 => message::<FromHost>(bytes),
        2 => message::<FromSwitch>(bytes),
        _ => message::<ToSwitch>(bytes),
    }
}

fn message<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let again = M::decode(&*message.encode_to_vec()).expect("one of ours");
    // A number that is none is not equal to itself.
    assert!(again == message || again.encode_to_vec() == message.encode_to_vec());
}

/// A table entry, as a client of P4Runtime writes, deletes and asks for it.
pub(crate) fn p4runtime(bytes: &[u8]) {
    let Ok(wire) = TableEntry::decode(bytes) else { return };
    let selector = convert::selector_from_wire(&wire);
    let key = convert::key_from_wire(&wire);
    let entry = match convert::entry_from_wire(&wire) {
        Ok(entry) => entry,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    assert_eq!(key.ok(), Some(entry.key()), "an entry's key is that of its deletion");
    let selector = selector.expect("whoever may write an entry may ask for it");
    assert!(selector.selects(&entry), "{entry:?}");
    // P4Runtime §8.4, read-write symmetry: what is read is canonical, and the same entry.
    let canonical = convert::entry_to_wire(&entry).expect("an entry of ours");
    assert_eq!(convert::entry_from_wire(&canonical).ok().as_ref(), Some(&entry));
    assert_eq!(convert::entry_to_wire(&entry).ok(), Some(canonical));
}
