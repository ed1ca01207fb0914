//! guest
fn main(){}
