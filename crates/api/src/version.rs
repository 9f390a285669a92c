//! Versions of the API: which there are, and the words for those that are not.

use std::fmt;
use std::str::FromStr;

/// A version of the Engine API, `1.12` … `1.51`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion(u16);

/// A version that this engine does not speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Above [`ApiVersion::MAX`].
    #[error("client version {0} is too new. Maximum supported API version is {max}", max = ApiVersion::MAX)]
    TooNew(String),
    /// Below [`ApiVersion::MIN`].
    #[error(
        "client version {0} is too old. Minimum supported API version is {min}, \
         please upgrade your client to a newer version",
        min = ApiVersion::MIN
    )]
    TooOld(String),
}

impl ApiVersion {
    /// The newest one.
    pub const MAX: Self = Self::v1(51);
    /// The oldest one.
    pub const MIN: Self = Self::v1(12);

    /// Version 1.`minor`.
    #[must_use]
    pub const fn v1(minor: u16) -> Self {
        Self(minor)
    }

    /// The number after `1.`.
    #[must_use]
    pub fn minor(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

impl FromStr for ApiVersion {
    type Err = VersionError;

    /// Reads what stands after `/v`, which is digits and dots. As in dockerd, parts are compared as
    /// numbers, and those that are missing or cannot be read are 0.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
        let major = parts.next().unwrap_or(0);
        let minor = parts.next().unwrap_or(0);
        let more = parts.any(|part| part > 0);
        let max = u64::from(Self::MAX.0);
        if major > 1 || (major == 1 && (minor > max || (minor == max && more))) {
            return Err(VersionError::TooNew(text.to_owned()));
        }
        match u16::try_from(minor) {
            Ok(minor) if major == 1 && minor >= Self::MIN.0 => Ok(Self(minor)),
            _ => Err(VersionError::TooOld(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as dockerd 28.5.2 words them, with our range.
    #[test]
    fn range_and_words() {
        assert_eq!("1.51".parse(), Ok(ApiVersion::MAX));
        assert_eq!("1.12".parse(), Ok(ApiVersion::MIN));
        assert_eq!("1.24".parse(), Ok(ApiVersion::v1(24)));
        assert_eq!("1.24.0".parse(), Ok(ApiVersion::v1(24)));
        let told = |text: &str| text.parse::<ApiVersion>().unwrap_err().to_string();
        assert_eq!(
            told("1.60"),
            "client version 1.60 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(
            told("1.11"),
            "client version 1.11 is too old. Minimum supported API version is 1.12, \
             please upgrade your client to a newer version"
        );
        for new in ["2.0", "1.52", "1.51.1", "9"] {
            assert!(told(new).contains("too new"), "{new}");
        }
        for old in ["1.9", "0.9", "1", "1.", "."] {
            assert!(told(old).contains("too old"), "{old}");
        }
    }
}
