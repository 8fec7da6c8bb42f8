//! From options to queries, and from their answers to what is shown.

use selvedge_topology::{
    Constraints, Disjoint, Metric, NoPair, NoPath, NodeIx, NotFound, Path, Query, Scratch,
    Shortest, Snapshot, cheapest, disjoint_pair, explain, explain_pair, k_shortest,
};
use serde_json::Value;

use super::show::{Shower, Shown, relaxed};
use super::{Apart, Args, By, ask};

/// Paths of equal length that are shown.
const MAX_ECMP: usize = 1024;
/// Paths of one command.
const MAX_PATHS: usize = 100_000;

pub(super) struct Found {
    pub(super) paths: Vec<Shown>,
    /// Ends that no path joins, where several were asked for.
    pub(super) none: Vec<(String, String)>,
}

/// Why there is no answer.
pub(super) struct Refused {
    pub(super) message: String,
    /// What would be enough: any of these, with all that is in it.
    pub(super) relax: Vec<Vec<Value>>,
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self { message, relax: Vec::new() }
    }
}

pub(super) fn find(
    args: &Args,
    snapshot: &Snapshot,
    assumed: &mut Vec<String>,
) -> Result<Found, Refused> {
    let mut end = |name: &Option<String>| {
        let named = name.as_deref().map(|name| ask::switch_or_host(snapshot, name, assumed));
        named.transpose()
    };
    let (from, to) = (end(&args.from)?, end(&args.to)?);
    let hooks: Vec<NodeIx> =
        args.hook.iter().map(|name| ask::switch(snapshot, name)).collect::<Result<_, _>>()?;
    let mut constraints: Constraints = ask::elements(snapshot, &args.elements)?;
    constraints.max_delay = args.max_delay;
    constraints.max_hops = args.max_hops;
    constraints.bandwidth = args.bandwidth;
    constraints.include.nodes.extend(&hooks);
    let metric = match args.metric {
        By::Delay => Metric::Delay,
        By::Cost => Metric::Cost,
        By::Hops => Metric::Hops,
    };
    let constraints = &constraints;
    let (mut paths, mut none) = (Vec::new(), Vec::new());
    if let (Some(from), Some(to)) = (from, to) {
        paths = between(args, snapshot, &Query { from, to, metric, constraints }, assumed)?;
    } else {
        let (graph, mut scratch) = (snapshot.graph(), Scratch::new());
        for (from, to) in ends(snapshot, from, to)? {
            match cheapest(graph, &mut scratch, &Query { from, to, metric, constraints }) {
                Ok(path) => paths.push(path),
                Err(NotFound::NoPath) => none.push((from, to)),
                Err(error) => return Err(error.to_string().into()),
            }
        }
    }
    let name = |node: NodeIx| snapshot.name(node).to_string();
    let shower = Shower::new(snapshot, &hooks, args.backups);
    Ok(Found {
        paths: paths.iter().map(|path| shower.show(path)).collect(),
        none: none.into_iter().map(|(from, to)| (name(from), name(to))).collect(),
    })
}

/// From one to all, from all to one, or from all to all.
fn ends(
    snapshot: &Snapshot,
    from: Option<NodeIx>,
    to: Option<NodeIx>,
) -> Result<impl Iterator<Item = (NodeIx, NodeIx)>, Refused> {
    let all = |one: Option<NodeIx>| -> Vec<NodeIx> {
        one.map_or_else(|| snapshot.nodes().collect(), |one| vec![one])
    };
    let (from, to) = (all(from), all(to));
    let count = from.len() * to.len();
    if count > MAX_PATHS {
        let message = format!("that is {count} paths, of {MAX_PATHS} at most: name --from or --to");
        return Err(message.into());
    }
    let pairs =
        from.into_iter().flat_map(move |from| to.clone().into_iter().map(move |to| (from, to)));
    Ok(pairs.filter(|(from, to)| from != to))
}

fn between(
    args: &Args,
    snapshot: &Snapshot,
    query: &Query<'_>,
    assumed: &mut Vec<String>,
) -> Result<Vec<Path>, Refused> {
    let (graph, mut scratch) = (snapshot.graph(), Scratch::new());
    let found = match (args.disjoint, args.k) {
        (Some(apart), _) => return pair(snapshot, &mut scratch, query, apart),
        (None, Some(k)) => k_shortest(graph, &mut scratch, query, usize::from(k)),
        (None, None) if args.ecmp => equal(snapshot, &mut scratch, query, assumed),
        (None, None) => cheapest(graph, &mut scratch, query).map(|path| vec![path]),
    };
    found.map_err(|error| match error {
        NotFound::NoPath => why(snapshot, explain(graph, &mut scratch, query)),
        error => error.to_string().into(),
    })
}

/// All paths of the least sum, whatever their hops.
fn equal(
    snapshot: &Snapshot,
    scratch: &mut Scratch,
    query: &Query<'_>,
    assumed: &mut Vec<String>,
) -> Result<Vec<Path>, NotFound> {
    let graph = snapshot.graph();
    let sum = |path: &Path| graph.length(path, query.metric).sum();
    let mut paths = Shortest::new(graph, *query);
    let mut found = vec![paths.next(scratch)?.ok_or(NotFound::NoPath)?];
    let least = sum(&found[0]);
    while let Some(path) = paths.next(scratch)?.filter(|path| sum(path) == least) {
        if found.len() == MAX_ECMP {
            assumed.push(format!("there are more paths of this length: {MAX_ECMP} are shown"));
            break;
        }
        found.push(path);
    }
    Ok(found)
}

fn pair(
    snapshot: &Snapshot,
    scratch: &mut Scratch,
    query: &Query<'_>,
    apart: Apart,
) -> Result<Vec<Path>, Refused> {
    if query.from == query.to {
        return Err("a pair of paths is between two different switches".to_owned().into());
    }
    let disjoint = match apart {
        Apart::Link => Disjoint::Link,
        Apart::Node => Disjoint::Node,
        Apart::Srlg => Disjoint::Srlg,
    };
    let graph = snapshot.graph();
    match disjoint_pair(graph, scratch, query, disjoint) {
        Ok(pair) => Ok(vec![pair.first, pair.second]),
        Err(NoPair::Shared(_) | NoPair::None | NoPair::NotFound(NotFound::NoPath)) => {
            Err(why(snapshot, explain_pair(graph, scratch, query, disjoint)))
        }
        Err(error) => Err(error.to_string().into()),
    }
}

fn why(snapshot: &Snapshot, why: Result<NoPath, NotFound>) -> Refused {
    match why {
        Ok(why) => {
            let relax = why.alternatives.iter();
            let relax = relax.map(|all| all.iter().map(|one| relaxed(snapshot, one)).collect());
            Refused { message: why.describe(snapshot), relax: relax.collect() }
        }
        // That there is none is known; what would be enough is not.
        Err(error) => format!("no path keeps to the constraints; what to relax: {error}").into(),
    }
}
