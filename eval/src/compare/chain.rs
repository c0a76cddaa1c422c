//! Orders settlements that lie on top of each other into chains.
//!
//! A census names the adapters that were merged into its base before (`settled`) and its own
//! (`trained`). A settlement lies on another one if what was settled before it is what had been settled
//! before that one, and then that one's own adapter. Only finished, whole adapters can be lain upon.

use super::opened::Opened;

/// Fewest settlements of a chain.
const LEAST: usize = 2;
/// Digits of a hash by which people know an adapter.
const DIGITS: usize = 8;

/// What a settlement lies on.
enum Ground {
    /// The bare base.
    Bare,
    /// The settlement at this position.
    Given(usize),
    /// Settlements that are not among those compared: first digits of their adapters' SHA-256.
    Absent(Vec<String>),
}

/// Settlements on top of each other, as positions among all, the one on the bare base first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chains {
    /// The longest chain.
    pub(super) forward: Vec<usize>,
    /// A chain of the same concepts in the other order, where there is one.
    pub(super) reversed: Option<Vec<usize>>,
}

/// Name of the settlement that `one` lies on; that of its adapters where it is not among `all`; `None`
/// for the bare base.
pub(super) fn on(one: &Opened, all: &[Opened]) -> Option<String> {
    match ground(one, all) {
        Ground::Bare => None,
        Ground::Given(below) => Some(all[below].name.clone()),
        Ground::Absent(adapters) => Some(adapters.join(" + ")),
    }
}

/// The longest chain whose every link is there. Among several, one that is there in the other order,
/// too; then the one named first.
///
/// # Errors
///
/// Why there is none: a link is missing, or nothing lies on anything.
pub(super) fn chains(all: &[Opened]) -> Result<Chains, String> {
    let (mut found, mut broken) = (Vec::new(), None);
    for top in (0..all.len()).filter(|&one| can_be_a_link(&all[one])) {
        match down_from(top, all) {
            Ok(chain) if chain.len() >= LEAST => found.push(chain),
            Ok(_) => {}
            Err(reason) => broken = broken.or(Some(reason)),
        }
    }
    let longest = found.iter().map(Vec::len).max().unwrap_or(0);
    found.retain(|chain| chain.len() == longest);
    found.sort_by_key(|chain| chain.iter().min().copied());
    let both = found.iter().find_map(|chain| Some((chain, reverse_of(chain, &found, all)?)));
    if let Some((forward, reversed)) = both {
        return Ok(Chains { forward: forward.clone(), reversed: Some(reversed.clone()) });
    }
    let alone = found.into_iter().next().map(|forward| Chains { forward, reversed: None });
    alone.ok_or_else(|| {
        broken.unwrap_or_else(|| {
            "these settlements lie side by side on one base: only states of one run, or runs that were \
             each settled on top of the one before (`settled` in a recipe), follow each other"
                .to_owned()
        })
    })
}

/// Whether other settlements may lie on this one.
fn can_be_a_link(one: &Opened) -> bool {
    one.last && one.is_whole()
}

fn ground(one: &Opened, all: &[Opened]) -> Ground {
    let settled = one.settled();
    if settled.is_empty() {
        return Ground::Bare;
    }
    let below = all.iter().position(|other| can_be_a_link(other) && other.lineage() == settled);
    below.map_or_else(
        || Ground::Absent(settled.iter().map(|hash| digits(hash)).collect()),
        Ground::Given,
    )
}

fn digits(hash: &str) -> String {
    hash.chars().take(DIGITS).collect()
}

/// The chain that ends with the settlement at `top`. It ends: each link has one adapter fewer below.
fn down_from(top: usize, all: &[Opened]) -> Result<Vec<usize>, String> {
    let mut chain = vec![top];
    let mut highest = top;
    loop {
        match ground(&all[highest], all) {
            Ground::Bare => {
                chain.reverse();
                return Ok(chain);
            }
            Ground::Given(below) => {
                chain.push(below);
                highest = below;
            }
            Ground::Absent(adapters) => {
                let missing = adapters.last().map_or("", String::as_str);
                let name = &all[highest].name;
                let given = all
                    .iter()
                    .find(|other| other.lineage().last().is_some_and(|own| digits(own) == missing));
                return Err(match given {
                    Some(other) => format!(
                        "`{name}` lies on the adapter of `{}`, which was itself settled in another base",
                        other.name
                    ),
                    None => format!(
                        "`{name}` lies on a settlement that was not given, that of adapter {missing}"
                    ),
                });
            }
        }
    }
}

/// The chain of the same concepts in the other order. One that reads the same both ways has none.
fn reverse_of<'a>(
    chain: &[usize],
    chains: &'a [Vec<usize>],
    all: &[Opened],
) -> Option<&'a Vec<usize>> {
    let concepts = |chain: &[usize]| -> Vec<String> {
        chain.iter().map(|&one| all[one].input.concept.id.clone()).collect()
    };
    let (forward, mut backward) = (concepts(chain), concepts(chain));
    backward.reverse();
    chains.iter().find(|other| forward != backward && concepts(other) == backward)
}
