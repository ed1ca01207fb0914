//! The command `conform`.
fn main() {}
