//! Errnos as errors and as the lower-case texts Go programs print.

use std::io;

/// A kernel refusal with the words the kernel added.
#[derive(Debug)]
struct Explained {
    errno: i32,
    said: String,
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", text(self.errno), self.said)
    }
}

impl std::error::Error for Explained {}

pub(crate) fn explained(errno: i32, said: &str) -> io::Error {
    let kind = io::Error::from_raw_os_error(errno).kind();
    io::Error::new(
        kind,
        Explained {
            errno,
            said: said.to_owned(),
        },
    )
}

/// The errno of an error of this crate, also when the kernel explained it.
#[must_use]
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<Explained>()?;
        Some(inner.errno)
    })
}

/// The text of an errno as Go prints it: `no such file or directory`.
#[must_use]
pub fn text(errno: i32) -> String {
    let long = io::Error::from_raw_os_error(errno).to_string();
    let plain = long.split(" (os error").next().unwrap_or(&long);
    let mut characters = plain.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

/// Turns the result of a raw system call into one with an errno.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_as_go_prints_them() {
        assert_eq!(text(libc::ENOENT), "no such file or directory");
        assert_eq!(text(libc::EACCES), "permission denied");
        assert_eq!(text(libc::ENOEXEC), "exec format error");
    }

    #[test]
    fn an_explained_error_keeps_its_errno() {
        let error = explained(libc::EINVAL, "overlay: no");
        assert_eq!(errno(&error), Some(libc::EINVAL));
        assert_eq!(error.to_string(), "invalid argument (overlay: no)");
    }
}
