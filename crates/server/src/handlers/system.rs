//! The engine itself: `/_ping`, `/version`, `/info`, `/auth`, and the plugins it does not have.

use api::auth::AuthConfig;
use api::go::{self, DecodeError};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::{Method, StatusCode};

use crate::failure::Failure;
use crate::request::{Call, Reply};
use crate::respond::{JSON, TEXT, json, ping_headers, with_type};
use crate::version;

/// `GET /_ping`, `HEAD /_ping`: needs no engine.
pub(crate) fn ping(call: Call) -> Reply {
    Box::pin(async move {
        let head = call.head.method == Method::HEAD;
        let body = if head { Vec::new() } else { b"OK".to_vec() };
        let mut response = with_type(StatusCode::OK, TEXT, body);
        if head {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        ping_headers(response.headers_mut());
        Ok(response)
    })
}

/// `GET /version`
pub(crate) fn version(call: Call) -> Reply {
    Box::pin(async move { Ok(json(StatusCode::OK, &call.engine()?.version())) })
}

/// `GET /info`
pub(crate) fn info(call: Call) -> Reply {
    Box::pin(async move {
        let info = call.engine()?.info().await?;
        Ok(with_type(
            StatusCode::OK,
            JSON,
            version::info(call.requested, &info),
        ))
    })
}

/// `POST /auth`
pub(crate) fn auth(mut call: Call) -> Reply {
    Box::pin(async move {
        // dockerd asks for no content type here, hands Go's errors through, and reads the first value only.
        let body = call.bytes().await?;
        let credentials: AuthConfig = match go::decode_first(&body) {
            Ok(credentials) => credentials,
            Err(DecodeError::Empty) => return Err(plain("EOF".to_owned())),
            Err(error) => return Err(plain(error.to_string())),
        };
        let answer = call.engine()?.auth(credentials).await?;
        Ok(json(StatusCode::OK, &answer))
    })
}

fn plain(message: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// `GET /plugins`: there are none.
pub(crate) fn plugins(_call: Call) -> Reply {
    Box::pin(async move { Ok(json::<[(); 0]>(StatusCode::OK, &[])) })
}
