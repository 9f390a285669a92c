//! Forward chains of others that would drop our traffic, and our two rules at the head of each.
//!
//! An accept in our table does not override a drop in another (measured; DESIGN decision 6). So where a
//! foreign chain at the forward hook can drop or reject, two rules at its head let what enters or leaves
//! by our bridge pass; our own forward chain came first and has dropped what may not.

use std::collections::{HashMap, HashSet};
use std::io;

use sys::nft::{
    Chain, Expression, Family, Hook, MetaKey, NfTables, Place, Rule, Table, Transaction, Verdict,
};

use super::name_is;
use crate::bridge::INSTANCE_PREFIX;

/// The chain that dockerd leaves to the user's own rules, and never flushes.
const USER_CHAIN: &str = "DOCKER-USER";
/// Families our containers' packets meet.
const FAMILIES: [Family; 2] = [Family::Ip, Family::Inet];

/// A foreign table with chains at the forward hook.
struct Foreign {
    family: Family,
    name: String,
    bases: Vec<Chain>,
    chains: HashSet<String>,
    rules: HashMap<String, Vec<Rule>>,
}

/// Puts the two rules where they are needed and takes them away where they are not. Changes nothing
/// when all is as it should be.
pub(crate) fn assert(nft: &mut NfTables, bridge: &str) -> io::Result<()> {
    settle(nft, bridge, Foreign::heads)
}

/// Takes our rules away everywhere.
pub(crate) fn retract(nft: &mut NfTables, bridge: &str) -> io::Result<()> {
    settle(nft, bridge, |_| HashSet::new())
}

fn settle(
    nft: &mut NfTables,
    bridge: &str,
    wanted: impl Fn(&Foreign) -> HashSet<String>,
) -> io::Result<()> {
    let mut transaction = Transaction::new();
    for foreign in tables(nft)? {
        foreign.change(&mut transaction, bridge, &wanted(&foreign));
    }
    nft.commit(transaction)
}

fn tables(nft: &mut NfTables) -> io::Result<Vec<Foreign>> {
    let mut tables: Vec<Foreign> = Vec::new();
    for chain in nft.chains()? {
        // Another Cooper's table drops only what goes to its own bridges; two daemons that put rules
        // into each other's tables would never stop.
        let mine = chain.family == Family::Inet && chain.table.starts_with(INSTANCE_PREFIX);
        if mine || !FAMILIES.contains(&chain.family) {
            continue;
        }
        let at = tables
            .iter()
            .position(|t| t.family == chain.family && t.name == chain.table);
        let at = at.unwrap_or_else(|| {
            tables.push(Foreign {
                family: chain.family,
                name: chain.table.clone(),
                bases: Vec::new(),
                chains: HashSet::new(),
                rules: HashMap::new(),
            });
            tables.len() - 1
        });
        tables[at].chains.insert(chain.name.clone());
        if chain.hook == Some(Hook::Forward) {
            tables[at].bases.push(chain);
        }
    }
    tables.retain(|table| !table.bases.is_empty());
    for table in &mut tables {
        let name = Table {
            family: table.family,
            name: &table.name,
        };
        for rule in nft.rules(name)? {
            table
                .rules
                .entry(rule.chain.clone())
                .or_default()
                .push(rule);
        }
    }
    Ok(tables)
}

impl Foreign {
    /// The chains that need our rules.
    fn heads(&self) -> HashSet<String> {
        self.bases
            .iter()
            .filter_map(|base| self.head(base))
            .collect()
    }

    fn head(&self, base: &Chain) -> Option<String> {
        let reached = self.reached(&base.name);
        let rules = reached
            .iter()
            .filter_map(|chain| self.rules.get(*chain))
            .flatten();
        let obstructs = base.drops || rules.flat_map(|rule| &rule.expressions).any(may_drop);
        let user = reached.contains(USER_CHAIN).then(|| USER_CHAIN.to_owned());
        obstructs.then(|| user.unwrap_or_else(|| base.name.clone()))
    }

    fn reached<'a>(&'a self, base: &'a str) -> HashSet<&'a str> {
        let mut reached = HashSet::from([base]);
        let mut next = vec![base];
        while let Some(chain) = next.pop() {
            let rules = self.rules.get(chain).into_iter().flatten();
            for expression in rules.flat_map(|rule| &rule.expressions) {
                if let Expression::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) = expression
                    && reached.insert(to)
                {
                    next.push(to);
                }
            }
        }
        reached
    }

    fn change(&self, t: &mut Transaction, bridge: &str, wanted: &HashSet<String>) {
        let table = Table {
            family: self.family,
            name: &self.name,
        };
        let ours = ours(bridge);
        for chain in &self.chains {
            let rules = self.rules.get(chain).map(Vec::as_slice).unwrap_or_default();
            let is_ours = |rule: &Rule| ours.contains(&rule.expressions);
            let found = rules.iter().filter(|rule| is_ours(rule)).count();
            let want = wanted.contains(chain);
            // Before ours only what lets through: the rules of another Cooper, which wants the head as well.
            let head = rules.iter().take_while(|rule| only_accepts(rule));
            let in_place = found == 2 && head.filter(|rule| is_ours(rule)).count() == 2;
            if (want && in_place) || (!want && found == 0) {
                continue;
            }
            for rule in rules.iter().filter(|rule| is_ours(rule)) {
                t.delete_rule(table, chain, rule.handle);
            }
            if want {
                for rule in ours.iter().rev() {
                    t.add_rule(table, chain, rule, Place::Head);
                }
            }
        }
    }
}

/// The two rules, in the order they stand in.
fn ours(bridge: &str) -> [Vec<Expression>; 2] {
    [MetaKey::InputName, MetaKey::OutputName].map(|key| {
        let mut rule = name_is(key, bridge);
        rule.push(Expression::Counter);
        rule.push(Expression::Verdict(Verdict::Accept));
        rule
    })
}

/// A rule of this engine's kind: nothing in it can stop a packet or send it elsewhere.
fn only_accepts(rule: &Rule) -> bool {
    let accepts = |expression: &Expression| match expression {
        Expression::Verdict(verdict) => *verdict == Verdict::Accept,
        Expression::Other(_) => false,
        _ => true,
    };
    rule.expressions.iter().all(accepts)
}

/// A drop, a reject, an xtables target or a verdict map, which can be either.
fn may_drop(expression: &Expression) -> bool {
    match expression {
        Expression::Verdict(Verdict::Drop) => true,
        Expression::Other(name) => matches!(name.as_str(), "reject" | "target" | "lookup"),
        _ => false,
    }
}
