//! Networks: those that every engine has.

use api::filters::Filters;
use hyper::StatusCode;

use crate::failure::Failure;
use crate::request::{Call, Reply};
use crate::respond::json;

/// `GET /networks`: without containers from 1.28 on.
pub(crate) fn list(call: Call) -> Reply {
    Box::pin(async move {
        let filters = Filters::parse(call.query.get("filters"))?;
        let mut networks = call.engine()?.networks_list(&filters)?;
        if !call.requested.below(28) {
            for network in &mut networks {
                network.containers.clear();
            }
        }
        Ok(json(StatusCode::OK, &networks))
    })
}

/// `GET /networks/{id}`
pub(crate) fn inspect(call: Call) -> Reply {
    Box::pin(async move {
        let verbose = call.query.get("verbose");
        if ![
            "", "0", "1", "true", "false", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False",
        ]
        .contains(&verbose)
        {
            return Err(Failure::invalid(format!(
                "invalid value for verbose: {verbose}: strconv.ParseBool: parsing \"{verbose}\": invalid syntax"
            )));
        }
        let scope = call.query.get("scope");
        let network = call.engine()?.network_inspect(&call.name, scope)?;
        Ok(json(StatusCode::OK, &network))
    })
}
