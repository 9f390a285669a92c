//! Volumes.

use api::filters::Filters;
use api::options::VolumeListOptions;
use api::volume::CreateRequest;
use hyper::StatusCode;

use crate::failure::Failure;
use crate::request::{Call, Reply};
use crate::respond::{empty, json};

/// `GET /volumes`
pub(crate) fn list(call: Call) -> Reply {
    Box::pin(async move {
        let options = VolumeListOptions {
            filters: Filters::parse(call.query.get("filters")).map_err(|error| {
                Failure::invalid(format!("error reading volume filters: {error}"))
            })?,
        };
        Ok(json(
            StatusCode::OK,
            &call.engine()?.volumes_list(&options).await?,
        ))
    })
}

/// `POST /volumes/create`
pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let request: CreateRequest = call.json().await?;
        Ok(json(
            StatusCode::CREATED,
            &call.engine()?.volume_create(request).await?,
        ))
    })
}

/// `GET /volumes/{name}`
pub(crate) fn inspect(call: Call) -> Reply {
    Box::pin(async move {
        Ok(json(
            StatusCode::OK,
            &call.engine()?.volume_inspect(&call.name).await?,
        ))
    })
}

/// `DELETE /volumes/{name}`
pub(crate) fn remove(call: Call) -> Reply {
    Box::pin(async move {
        call.engine()?
            .volume_remove(&call.name, call.query.flag("force"))
            .await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}
