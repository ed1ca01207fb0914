//! The targets, by name: those of `harness/tests/hostile`.

#[path = "../../tests/hostile/memory.rs"]
mod memory;
#[path = "../../tests/hostile/region.rs"]
mod region;
#[path = "../../tests/hostile/targets.rs"]
mod targets;

#[global_allocator]
static COUNTED: memory::Counting = memory::Counting;

/// Gives `input` to the target called `name`.
///
/// # Panics
/// When the target fails, or none has this name.
pub fn give(name: &str, input: &[u8]) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    targets::give(target.expect("a target of this name").1, input);
}
