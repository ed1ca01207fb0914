//! The index of names of one layer: chains of types by the hash of their name, built on the first look-up.
//!
//! Hundreds of hooks and kfuncs are looked up at the start of every machine, and a scan of all types for each
//! would cost about a tenth of building this. Names are not copied, and building is linear whatever they are.

use super::Kind;
use super::blob::{Blob, Words};
use super::layer::Layer;

/// How much of a name counts; the kernel's own limit is below (KSYM_NAME_LEN, 512 from 6.1 on: include/linux/kallsyms.h).
const MAX_NAME: usize = 512;
/// The end of a chain.
const NONE: u32 = u32::MAX;

/// For each hash the first type, and for each type the next one with the same hash, in ascending order.
#[derive(Debug)]
pub(super) struct Names {
    heads: Words,
    next: Words,
}

impl Names {
    /// Indexes every type of `layer` that has a name of its own; tags, whose names repeat by the hundred, are left
    /// out. The index lies where `data`, the layer's own, does.
    pub(super) fn build(layer: &Layer, data: &Blob) -> Self {
        let kinds = layer.kinds();
        let mut heads = vec![NONE; kinds.len().next_power_of_two()];
        let mut next = vec![NONE; kinds.len()];
        let indexes = 0u32..;
        let all: Vec<(u32, &Kind)> = indexes.zip(kinds).collect();
        // From the last to the first, because each type goes to the front of its chain.
        for &(index, kind) in all.iter().rev() {
            if matches!(kind, Kind::DeclTag | Kind::TypeTag | Kind::Ptr | Kind::FuncProto) {
                continue;
            }
            let Some(name) = layer.name_off(index).filter(|&offset| offset != 0) else { continue };
            let Some(bytes) = layer.string_tail(name) else { continue };
            let slot = bucket(hash(bytes), heads.len());
            if let (Some(head), Some(link)) = (heads.get_mut(slot), next.get_mut(index as usize)) {
                *link = *head;
                *head = index;
            }
        }
        Self { heads: Words::beside(data, heads), next: Words::beside(data, next) }
    }

    /// The indexes of the types that may have this name, ascending; the caller compares the names.
    pub(super) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let head = self.heads.get(bucket(hash(name), self.heads.len())).copied();
        let real = |index: &u32| *index != NONE;
        std::iter::successors(head.filter(real), move |&index| {
            self.next.get(index as usize).copied().filter(real)
        })
    }
}

/// FNV-1a over the bytes before the first NUL, so that a string need not be measured first; over no more than the longest
/// name has, so that types that share one endless string do not take time without end.
fn hash(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(MAX_NAME)
        .take_while(|&&b| b != 0)
        .fold(0x811c_9dc5, |hash: u32, &b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// A place in a table whose length is a power of two.
const fn bucket(hash: u32, length: usize) -> usize {
    // The upper bits of FNV are mixed better than the lower ones.
    (hash ^ (hash >> 15)) as usize & length.saturating_sub(1)
}
