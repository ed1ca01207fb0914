//! What the kernel's BTF says of a kfunc.

use super::inventory::TAG;
use crate::btf::Btf;

/// A function's tags. Whether there are any is for whom the kernel was built by to say (`super::inventory::TAG`), so that
/// one that has none among others that have is told apart from one of many.
pub(super) fn tags(btf: &Btf, id: u32) -> String {
    let tags = btf.decl_tags(id);
    if !tags.is_empty() {
        tags.join(", ")
    } else if btf.functions_tagged(TAG).is_empty() {
        "this BTF has none".to_owned()
    } else {
        "none".to_owned()
    }
}

/// A function's prototype in the manner of C.
pub(super) fn prototype(btf: &Btf, id: u32, name: &str) -> String {
    let Some(prototype) = btf.prototype(id) else { return "unreadable".to_owned() };
    let join = |(parameter, type_id): &(String, u32)| btf.declaration(*type_id, parameter);
    let parameters: Vec<String> = prototype.params.iter().map(join).collect();
    btf.declaration(prototype.ret, &format!("{name}({})", parameters.join(", ")))
}
