//! The tags of a repository, page by page (OCI distribution-spec, "Listing Tags").

use hyper::Uri;
use hyper::header::{self, HeaderMap};
use serde::Deserialize;

use super::{Error, Remote, text};
use crate::transport;

/// Tags asked for at once: what registries give at most anyway.
const PAGE_TAGS: usize = 1000;

/// Pages read of one repository: nobody pulls more tags than this at once, and a registry could link for ever.
const PAGES_MAX: usize = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Remote {
    /// Every tag of the repository, in the registry's order.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        let mut tags = Vec::new();
        let mut answer = self
            .get(&format!("tags/list?n={PAGE_TAGS}"), HeaderMap::new())
            .await?;
        for _ in 0..PAGES_MAX {
            let link = text(answer.headers(), &header::LINK);
            let bytes = transport::document(answer.into_body()).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|_| Error::Tags)?;
            tags.extend(page.tags.unwrap_or_default());
            let Some(next) = next(&link) else {
                return Ok(tags);
            };
            let base: Uri = self.endpoint.url("").parse().map_err(|_| Error::Tags)?;
            let url = transport::resolve(&base, next).ok_or(Error::Tags)?;
            // Another page of the same list is on the same host, or it is none.
            if url.authority() != base.authority() {
                return Err(Error::Tags);
            }
            answer = self.fetch(&url.to_string(), HeaderMap::new()).await?;
        }
        Err(Error::Tags)
    }
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let mut parameters = parameters.split(';').map(str::trim);
    parameters
        .any(|parameter| matches!(parameter, "rel=\"next\"" | "rel=next"))
        .then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_one_linked_so() {
        let table = [
            (
                "</v2/a/tags/list?last=x&n=2>; rel=\"next\"",
                Some("/v2/a/tags/list?last=x&n=2"),
            ),
            ("<http://h/x>;rel=next", Some("http://h/x")),
            ("</x>; rel=\"prev\"", None),
            ("", None),
            ("/x", None),
        ];
        for (link, expected) in table {
            assert_eq!(next(link), expected, "{link}");
        }
    }
}
