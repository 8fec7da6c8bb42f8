//! Which P4Runtime client may write (P4Runtime 1.4 §5, client arbitration). Pure.
//!
//! For each role the client with the highest election id ever seen is primary; the others,
//! and everybody after the primary has gone, are backups. There is one device, so device ids
//! are the server's to check.
//!
//! What a switch remembers of a role that no client holds is the [`Memory`] it was made with:
//! a managed switch goes on refusing lower ids, an unmanaged one forgets.

use std::collections::BTreeMap;

/// Streams that may be open for one role (§5.3, rule 1.4).
pub const CLIENTS_MAX: usize = 16;
/// Roles that may be live at once.
pub const ROLES_MAX: usize = 16;

/// One open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// An election id as one number: `high << 64 | low`.
pub type ElectionId = u128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The highest id of a role outlives its clients.
    Keep,
    /// Once a role's last client goes, any id may be primary again.
    Forget,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub to: ClientId,
    pub role: String,
    /// The highest ever seen; `None`: there has not been a primary.
    pub election_id: Option<ElectionId>,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// OK.
    Primary,
    /// ALREADY_EXISTS: another is.
    Backup,
    /// NOT_FOUND: nobody is.
    Vacant,
}

/// Why a client's stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BidError {
    #[error("election id {0} is in use by another client of this role")]
    Taken(ElectionId),
    #[error("this stream's role is {0:?}; open another stream for another role")]
    RoleChanged(String),
    #[error("{CLIENTS_MAX} clients hold this role already")]
    Clients,
    #[error("{ROLES_MAX} roles are live already")]
    Roles,
}

/// Why a client may not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    #[error("no client has opened a stream for role {0:?}")]
    NoSuchRole(String),
    #[error("election id {given} is not the primary's; the highest seen is {highest}")]
    NotPrimary { given: ElectionId, highest: ElectionId },
    #[error("role {0:?} has no primary")]
    Vacant(String),
}

#[derive(Debug, Default)]
struct Role {
    highest: Option<ElectionId>,
    primary: Option<ClientId>,
    clients: BTreeMap<ClientId, Option<ElectionId>>,
}

#[derive(Debug)]
pub struct Arbitration {
    memory: Memory,
    roles: BTreeMap<String, Role>,
}

impl Arbitration {
    pub fn new(memory: Memory) -> Self {
        Self { memory, roles: BTreeMap::new() }
    }

    /// Before any client: what an earlier agent saw under `role`.
    pub fn remember(&mut self, role: &str, highest: ElectionId) {
        self.roles.entry(role.to_owned()).or_default().highest = Some(highest);
    }

    /// Whether `bid` would raise the highest id of `role`, for who has to write that down
    /// before it is true.
    pub fn raises(&self, role: &str, bid: Option<ElectionId>) -> Option<ElectionId> {
        let highest = self.roles.get(role).and_then(|role| role.highest);
        bid.filter(|bid| highest.is_none_or(|highest| *bid > highest))
    }

    /// A MasterArbitrationUpdate. The notices are in the order in which they must be sent:
    /// the new primary's last, when everybody else has heard.
    ///
    /// # Errors
    /// [`BidError`]; nothing has changed then.
    pub fn bid(
        &mut self,
        client: ClientId,
        name: &str,
        bid: Option<ElectionId>,
    ) -> Result<Vec<Notice>, BidError> {
        let other = self.roles.iter().find(|(_, role)| role.clients.contains_key(&client));
        if let Some((other, _)) = other.filter(|(other, _)| *other != name) {
            return Err(BidError::RoleChanged(other.clone()));
        }
        let live = self.roles.values().filter(|role| !role.clients.is_empty()).count();
        let known = self.roles.get(name);
        if let Some(role) = known {
            let taken = |(c, id): (&ClientId, &Option<_>)| *c != client && *id == bid;
            if let Some(id) = bid.filter(|_| role.clients.iter().any(taken)) {
                return Err(BidError::Taken(id));
            }
            if !role.clients.contains_key(&client) && role.clients.len() >= CLIENTS_MAX {
                return Err(BidError::Clients);
            }
        }
        if known.is_none_or(|role| role.clients.is_empty()) && live >= ROLES_MAX {
            return Err(BidError::Roles);
        }

        let role = self.roles.entry(name.to_owned()).or_default();
        role.clients.insert(client, bid);
        let wins = bid.is_some_and(|bid| role.highest.is_none_or(|highest| bid >= highest));
        if wins {
            role.highest = bid;
            role.primary = Some(client);
            return Ok(role.notices(name));
        }
        if role.primary == Some(client) {
            role.primary = None;
            return Ok(role.notices(name));
        }
        Ok(vec![role.notice(client, name)])
    }

    /// The client's stream has ended.
    pub fn leave(&mut self, client: ClientId) -> Vec<Notice> {
        let held = self.roles.iter_mut().find(|(_, role)| role.clients.contains_key(&client));
        let Some((name, role)) = held else { return Vec::new() };
        let name = name.clone();
        role.clients.remove(&client);
        let notices = if role.primary == Some(client) {
            role.primary = None;
            role.notices(&name)
        } else {
            Vec::new()
        };
        if role.clients.is_empty() && (self.memory == Memory::Forget || role.highest.is_none()) {
            self.roles.remove(&name);
        }
        notices
    }

    /// Whether who gives this role and election id may write (§12, checks 1 and 2).
    ///
    /// # Errors
    /// [`WriteRefusal`].
    pub fn may_write(&self, name: &str, given: ElectionId) -> Result<(), WriteRefusal> {
        let role = self.roles.get(name).filter(|role| !role.clients.is_empty());
        let role = role.ok_or_else(|| WriteRefusal::NoSuchRole(name.to_owned()))?;
        match (role.primary, role.highest) {
            (Some(_), Some(highest)) if highest == given => Ok(()),
            (Some(_), Some(highest)) => Err(WriteRefusal::NotPrimary { given, highest }),
            _ => Err(WriteRefusal::Vacant(name.to_owned())),
        }
    }

    /// The client to which packets and digests of `role` would go.
    pub fn is_primary(&self, client: ClientId) -> bool {
        self.roles.values().any(|role| role.primary == Some(client))
    }
}

impl Role {
    fn notice(&self, to: ClientId, name: &str) -> Notice {
        let standing = match self.primary {
            Some(primary) if primary == to => Standing::Primary,
            Some(_) => Standing::Backup,
            None => Standing::Vacant,
        };
        Notice { to, role: name.to_owned(), election_id: self.highest, standing }
    }

    fn notices(&self, name: &str) -> Vec<Notice> {
        let others = self.clients.keys().filter(|client| Some(**client) != self.primary);
        others.chain(&self.primary).map(|client| self.notice(*client, name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Backup, Primary, Vacant};
    use proptest::prelude::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);
    const C: ClientId = ClientId(3);

    enum Input {
        Bid(ClientId, &'static str, Option<u128>),
        Leave(ClientId),
    }
    use Input::{Bid, Leave};

    type Told = (ClientId, Option<u128>, Standing);

    fn run(memory: Memory, script: &[(Input, Result<Vec<Told>, BidError>)]) -> Arbitration {
        let mut arbitration = Arbitration::new(memory);
        for (step, (input, want)) in script.iter().enumerate() {
            let got = match input {
                Bid(client, role, id) => arbitration.bid(*client, role, *id),
                Leave(client) => Ok(arbitration.leave(*client)),
            };
            let got = got.map(|notices| {
                notices.into_iter().map(|n| (n.to, n.election_id, n.standing)).collect::<Vec<_>>()
            });
            assert_eq!(got, *want, "step {step}");
        }
        arbitration
    }

    #[test]
    fn script() {
        let arbitration = run(
            Memory::Keep,
            &[
                // Without an id nobody is primary, ever.
                (Bid(A, "", None), Ok(vec![(A, None, Vacant)])),
                (Bid(B, "", Some(0)), Ok(vec![(A, Some(0), Backup), (B, Some(0), Primary)])),
                (Bid(C, "", Some(0)), Err(BidError::Taken(0))),
                (
                    Bid(C, "", Some(7)),
                    Ok(vec![(A, Some(7), Backup), (B, Some(7), Backup), (C, Some(7), Primary)]),
                ),
                // A backup that bids too little is told alone.
                (Bid(A, "", Some(5)), Ok(vec![(A, Some(7), Backup)])),
                // The primary steps down: nobody is, until 7 is reached again.
                (
                    Bid(C, "", Some(6)),
                    Ok(vec![(A, Some(7), Vacant), (B, Some(7), Vacant), (C, Some(7), Vacant)]),
                ),
                (
                    Bid(B, "", Some(7)),
                    Ok(vec![(A, Some(7), Backup), (C, Some(7), Backup), (B, Some(7), Primary)]),
                ),
                // Roles are apart, and fixed for a stream.
                (Bid(A, "other", Some(9)), Err(BidError::RoleChanged(String::new()))),
                (Bid(ClientId(4), "other", Some(1)), Ok(vec![(ClientId(4), Some(1), Primary)])),
                (Leave(A), Ok(vec![])),
                (Leave(B), Ok(vec![(C, Some(7), Vacant)])),
                (Leave(B), Ok(vec![])),
                (Leave(C), Ok(vec![])),
                (Bid(A, "", Some(6)), Ok(vec![(A, Some(7), Vacant)])),
            ],
        );
        let refused = |role: &str, id| arbitration.may_write(role, id).unwrap_err();
        assert_eq!(arbitration.may_write("other", 1), Ok(()));
        assert_eq!(refused("other", 0), WriteRefusal::NotPrimary { given: 0, highest: 1 });
        assert_eq!(refused("", 7), WriteRefusal::Vacant(String::new()));
        assert_eq!(refused("none", 7), WriteRefusal::NoSuchRole("none".into()));
    }

    #[test]
    fn an_unmanaged_switch_forgets() {
        run(
            Memory::Forget,
            &[
                (Bid(A, "", Some(100)), Ok(vec![(A, Some(100), Primary)])),
                (Bid(B, "", Some(1)), Ok(vec![(B, Some(100), Backup)])),
                (Leave(A), Ok(vec![(B, Some(100), Vacant)])),
                (Leave(B), Ok(vec![])),
                (Bid(B, "", Some(1)), Ok(vec![(B, Some(1), Primary)])),
            ],
        );
    }

    #[test]
    fn an_earlier_agents_ids_count() {
        let mut arbitration = Arbitration::new(Memory::Keep);
        arbitration.remember("", 41);
        assert_eq!(arbitration.raises("", Some(41)), None);
        assert_eq!(arbitration.raises("", Some(42)), Some(42));
        assert_eq!(arbitration.bid(A, "", Some(40)).unwrap()[0].standing, Vacant);
        assert_eq!(arbitration.bid(A, "", Some(41)).unwrap()[0].standing, Primary);
    }

    #[test]
    fn streams_and_roles_are_limited() {
        let mut arbitration = Arbitration::new(Memory::Keep);
        for n in 0..CLIENTS_MAX as u64 {
            arbitration.bid(ClientId(n), "", None).unwrap();
        }
        assert_eq!(arbitration.bid(ClientId(99), "", None), Err(BidError::Clients));
        assert!(arbitration.bid(ClientId(0), "", None).is_ok());
        for n in 1..ROLES_MAX as u64 {
            arbitration.bid(ClientId(100 + n), &format!("r{n}"), None).unwrap();
        }
        assert_eq!(arbitration.bid(ClientId(99), "more", None), Err(BidError::Roles));
        arbitration.leave(ClientId(101));
        assert!(arbitration.bid(ClientId(99), "more", None).is_ok());
    }

    proptest! {
        /// Whatever clients do: at most one primary a role, it holds the highest id ever bid,
        /// and only its id may write.
        #[test]
        fn the_primary_holds_the_highest_id(
            steps in prop::collection::vec((0u64..4, prop::option::of(0u128..6), any::<bool>()), 1..60)
        ) {
            let mut arbitration = Arbitration::new(Memory::Keep);
            let mut highest = None;
            for (client, id, leaves) in steps {
                let client = ClientId(client);
                if leaves {
                    arbitration.leave(client);
                } else if arbitration.bid(client, "", id).is_ok() {
                    highest = highest.max(id);
                }
                let Some(role) = arbitration.roles.get("") else { continue };
                prop_assert_eq!(role.highest, highest);
                if let Some(primary) = role.primary {
                    prop_assert_eq!(role.clients[&primary], highest);
                }
                for id in 0..6 {
                    let may = role.primary.is_some() && Some(id) == highest;
                    prop_assert_eq!(arbitration.may_write("", id).is_ok(), may);
                }
            }
        }
    }
}
