//! One function for each endpoint: validate, convert, call the engine, map its errors. Nothing is decided here.

pub(crate) mod containers;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod networks;
pub(crate) mod streams;
pub(crate) mod system;
pub(crate) mod volumes;
