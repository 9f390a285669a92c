//! Which kernel this is, for the few things that cannot be found out by asking for them.

/// The first two numbers of a kernel's release.
pub type Version = (u32, u32);

/// The running kernel's release, as `uname -r` says it.
#[must_use]
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The numbers of a release; nothing where it does not begin with two.
#[must_use]
pub fn version(release: &str) -> Option<Version> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_two_numbers() {
        for (release, numbers) in [
            ("6.1.0-56-cloud-amd64", Some((6, 1))),
            ("5.10.0-32-amd64", Some((5, 10))),
            ("6.4", Some((6, 4))),
            ("6.5.0-rc1", Some((6, 5))),
            ("6.12.5+bpo-amd64", Some((6, 12))),
            ("10.0", Some((10, 0))),
            ("6", None),
            ("unknown", None),
        ] {
            assert_eq!(version(release), numbers, "{release}");
        }
    }
}
