//! The one binary: picks its role from argv[0] and the first word. Wiring only.

fn main() {}
