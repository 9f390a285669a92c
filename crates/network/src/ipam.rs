//! Which subnet a bridge takes. Pure.

use ipnet::Ipv4Net;

use crate::config::Pool;

/// The first subnet of `pools` that meets none of `used`, with the bridge's address: its first host.
pub(crate) fn choose(pools: &[Pool], used: &[Ipv4Net]) -> Option<Ipv4Net> {
    pools
        .iter()
        .filter_map(|pool| pool.base.subnets(pool.size).ok())
        .flatten()
        .find(|candidate| !used.iter().any(|net| overlap(*net, *candidate)))
        .and_then(first_host)
}

fn first_host(subnet: Ipv4Net) -> Option<Ipv4Net> {
    Ipv4Net::new(subnet.hosts().next()?, subnet.prefix_len()).ok()
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_pools;

    fn check(used: &[&str], expected: &str) {
        let used: Vec<Ipv4Net> = used.iter().map(|net| net.parse().unwrap()).collect();
        let chosen = choose(&default_pools(), &used).map(|net| net.to_string());
        assert_eq!(chosen.as_deref(), Some(expected), "{used:?}");
    }

    #[test]
    fn subnets_in_use_are_passed_over() {
        check(&[], "172.17.0.1/16");
        check(&["172.17.0.0/16"], "172.18.0.1/16");
        check(&["172.17.5.0/24", "172.18.0.0/15"], "172.20.0.1/16");
        check(&["172.16.0.0/12"], "10.0.0.1/16");
        check(&["172.16.0.0/12", "10.0.0.0/9"], "10.128.0.1/16");
        check(&["172.16.0.0/12", "10.0.0.0/8"], "100.64.0.1/16");
    }

    #[test]
    fn nothing_is_left_when_everything_is_in_use() {
        let all = ["0.0.0.0/0".parse().unwrap()];
        assert_eq!(choose(&default_pools(), &all), None);
    }
}
