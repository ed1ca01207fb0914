//! A writer of BTF, for programs that need types of their own: map values with kptrs, locks, timers or lists, and
//! the functions that callbacks and subprograms are.
//!
//! It writes what it is told; whether the kernel takes it (`btf_check_all_metas`, 6.12 kernel/bpf/btf.c) is for the
//! kernel to say. Reading is [`crate::btf`]'s work.

use std::collections::HashMap;

use crate::btf::{Btf, Kind};

/// Encoding of an integer: none of the flags.
pub const UNSIGNED: u32 = 0;
/// Encoding of an integer: signed.
pub const SIGNED: u32 = 1;
/// Encoding of an integer: shown as a character.
pub const CHAR: u32 = 2;
/// Encoding of an integer: a truth value.
pub const BOOL: u32 = 4;

/// How far a function is visible. A global function is verified on its own, a static one where it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// `BTF_FUNC_STATIC`, `BTF_VAR_STATIC`.
    Static = 0,
    /// `BTF_FUNC_GLOBAL`, `BTF_VAR_GLOBAL_ALLOCATED`.
    Global = 1,
    /// `BTF_FUNC_EXTERN`, `BTF_VAR_GLOBAL_EXTERN`.
    Extern = 2,
}

/// BTF in the making. Every method that adds a type gives its id; ids count from 1 in the order of the calls.
#[derive(Clone, Debug)]
pub struct BtfBuilder {
    types: Vec<u8>,
    /// Where each type begins in `types`.
    starts: Vec<usize>,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
    first_id: u32,
    first_string: u32,
}

impl Default for BtfBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BtfBuilder {
    /// BTF that stands on its own.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(1, 0, vec![0])
    }

    /// BTF whose ids and strings continue those of `base`, as a module's does.
    #[must_use]
    pub fn split(base: &Btf) -> Self {
        Self::starting_at(base.next_id(), base.next_string(), Vec::new())
    }

    fn starting_at(first_id: u32, first_string: u32, strings: Vec<u8>) -> Self {
        let known = HashMap::from([(String::new(), 0)]);
        Self { types: Vec::new(), starts: Vec::new(), strings, known, first_id, first_string }
    }

    /// The id that the next type will have.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.first_id + count(self.starts.len())
    }

    /// Adds a string and gives its offset, for line information; equal strings share one place.
    pub fn string(&mut self, text: &str) -> u32 {
        if let Some(&offset) = self.known.get(text) {
            return offset;
        }
        let offset = self.first_string + count(self.strings.len());
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        self.known.insert(text.to_owned(), offset);
        offset
    }

    /// An integer of `size` bytes with the encoding [`UNSIGNED`], [`SIGNED`], [`CHAR`] or [`BOOL`].
    pub fn int(&mut self, name: &str, size: u32, encoding: u32) -> u32 {
        let id = self.add(Kind::Int, name, 0, false, size);
        self.words(&[(encoding << 24) | (size * 8)]);
        id
    }

    /// A floating-point number of `size` bytes (5.13).
    pub fn float(&mut self, name: &str, size: u32) -> u32 {
        self.add(Kind::Float, name, 0, false, size)
    }

    /// A pointer to `target`, 0 for `void *`.
    pub fn ptr(&mut self, target: u32) -> u32 {
        self.add(Kind::Ptr, "", 0, false, target)
    }

    /// `const target`.
    pub fn constant(&mut self, target: u32) -> u32 {
        self.add(Kind::Const, "", 0, false, target)
    }

    /// `volatile target`.
    pub fn volatile(&mut self, target: u32) -> u32 {
        self.add(Kind::Volatile, "", 0, false, target)
    }

    /// `restrict target`.
    pub fn restrict(&mut self, target: u32) -> u32 {
        self.add(Kind::Restrict, "", 0, false, target)
    }

    /// `typedef target name`.
    pub fn typedef(&mut self, name: &str, target: u32) -> u32 {
        self.add(Kind::Typedef, name, 0, false, target)
    }

    /// A tag on a type (5.17), such as `kptr` between a pointer and what it points to.
    pub fn type_tag(&mut self, tag: &str, target: u32) -> u32 {
        self.add(Kind::TypeTag, tag, 0, false, target)
    }

    /// A tag on a declaration (5.16): on the type as a whole for component -1, else on its member or parameter with
    /// that index, such as `contains:node:link` on a member of type `bpf_list_head`.
    pub fn decl_tag(&mut self, tag: &str, target: u32, component: i32) -> u32 {
        let id = self.add(Kind::DeclTag, tag, 0, false, target);
        self.words(&[component.cast_unsigned()]);
        id
    }

    /// A declared struct.
    pub fn fwd_struct(&mut self, name: &str) -> u32 {
        self.add(Kind::Fwd, name, 0, false, 0)
    }

    /// A declared union.
    pub fn fwd_union(&mut self, name: &str) -> u32 {
        self.add(Kind::Fwd, name, 0, true, 0)
    }

    /// `element[length]`, indexed by an integer type.
    pub fn array(&mut self, element: u32, index: u32, length: u32) -> u32 {
        let id = self.add(Kind::Array, "", 0, false, 0);
        self.words(&[element, index, length]);
        id
    }

    /// A struct of `size` bytes with members given as name, type and offset in bytes.
    pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.record(Kind::Struct, name, size, members)
    }

    /// A union of `size` bytes with members given as name, type and offset in bytes.
    pub fn union(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.record(Kind::Union, name, size, members)
    }

    /// A struct of `size` bytes with members given as name, type, offset in bits, and width in bits or 0.
    pub fn bitfields(&mut self, name: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let names: Vec<u32> = members.iter().map(|member| self.string(member.0)).collect();
        let id = self.add(Kind::Struct, name, members.len(), true, size);
        for (name, &(_, type_id, bits, width)) in names.into_iter().zip(members) {
            self.words(&[name, type_id, (width << 24) | bits]);
        }
        id
    }

    /// An enum of 4 bytes.
    pub fn enumeration(&mut self, name: &str, values: &[(&str, i32)]) -> u32 {
        let names: Vec<u32> = values.iter().map(|value| self.string(value.0)).collect();
        let id = self.add(Kind::Enum, name, values.len(), false, 4);
        for (name, &(_, value)) in names.into_iter().zip(values) {
            self.words(&[name, value.cast_unsigned()]);
        }
        id
    }

    /// An enum of 8 bytes (6.0).
    pub fn enumeration64(&mut self, name: &str, values: &[(&str, u64)]) -> u32 {
        let names: Vec<u32> = values.iter().map(|value| self.string(value.0)).collect();
        let id = self.add(Kind::Enum64, name, values.len(), false, 8);
        for (name, &(_, value)) in names.into_iter().zip(values) {
            self.words(&[name]);
            self.types.extend_from_slice(&value.to_le_bytes());
        }
        id
    }

    /// What a function takes and returns; 0 is `void`.
    pub fn func_proto(&mut self, ret: u32, params: &[(&str, u32)]) -> u32 {
        let names: Vec<u32> = params.iter().map(|param| self.string(param.0)).collect();
        let id = self.add(Kind::FuncProto, "", params.len(), false, ret);
        for (name, &(_, type_id)) in names.into_iter().zip(params) {
            self.words(&[name, type_id]);
        }
        id
    }

    /// A function. Its linkage stands where other types have the number of their elements.
    pub fn func(&mut self, name: &str, proto: u32, linkage: Linkage) -> u32 {
        self.add(Kind::Func, name, linkage as usize, false, proto)
    }

    /// A variable.
    pub fn var(&mut self, name: &str, type_id: u32, linkage: Linkage) -> u32 {
        let id = self.add(Kind::Var, name, 0, false, type_id);
        self.words(&[linkage as u32]);
        id
    }

    /// A section of `size` bytes with variables given as id, offset and size in bytes.
    pub fn datasec(&mut self, name: &str, size: u32, vars: &[(u32, u32, u32)]) -> u32 {
        let id = self.add(Kind::DataSec, name, vars.len(), false, size);
        for &(var, offset, size) in vars {
            self.words(&[var, offset, size]);
        }
        id
    }

    /// Any type, for kinds without a method and for types that are wrong on purpose: the `info` and third words of
    /// `struct btf_type`, and what follows them.
    pub fn raw(&mut self, name: &str, info: u32, size_or_type: u32, tail: &[u32]) -> u32 {
        let (id, name) = (self.next_id(), self.string(name));
        self.starts.push(self.types.len());
        self.words(&[name, info, size_or_type]);
        self.words(tail);
        id
    }

    /// Lets a pointer, modifier, typedef, tag, function or variable refer to another type than it was made with:
    /// the only way to write types that refer to each other. Ids not made by this builder are ignored.
    pub fn retarget(&mut self, id: u32, target: u32) {
        let start = id.checked_sub(self.first_id).and_then(|index| self.starts.get(index as usize));
        let word = start.and_then(|&start| self.types.get_mut(start + 8..start + 12));
        if let Some(word) = word {
            word.copy_from_slice(&target.to_le_bytes());
        }
    }

    /// The finished blob.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let (types, strings) = (count(self.types.len()), count(self.strings.len()));
        let mut blob = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            blob.extend_from_slice(&word.to_le_bytes());
        }
        blob.extend_from_slice(&self.types);
        blob.extend_from_slice(&self.strings);
        blob
    }

    fn record(&mut self, kind: Kind, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let names: Vec<u32> = members.iter().map(|member| self.string(member.0)).collect();
        let id = self.add(kind, name, members.len(), false, size);
        for (name, &(_, type_id, offset)) in names.into_iter().zip(members) {
            self.words(&[name, type_id, offset * 8]);
        }
        id
    }

    /// The common part of a type.
    fn add(&mut self, kind: Kind, name: &str, vlen: usize, flag: bool, size_or_type: u32) -> u32 {
        let info = (u32::from(flag) << 31) | ((kind as u32) << 24) | count(vlen);
        self.raw(name, info, size_or_type, &[])
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// A length as BTF writes it; what a probe builds is far below 4 GiB, and what is not ends up wrong, not unsafe.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_of_the_smallest_blob() {
        let mut b = BtfBuilder::new();
        assert_eq!(b.int("int", 4, SIGNED), 1);
        let blob = b.finish();
        assert_eq!(
            &blob[..24],
            [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0]
        );
        assert_eq!(&blob[24..40], [1, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 32, 0, 0, 1]);
        assert_eq!(&blob[40..], b"\0int\0");
    }

    #[test]
    fn equal_strings_share_a_place_and_ids_count_up() {
        let mut b = BtfBuilder::new();
        let int = b.int("x", 4, UNSIGNED);
        let typedef = b.typedef("x", int);
        assert_eq!((int, typedef, b.next_id()), (1, 2, 3));
        assert_eq!(b.string("x"), 1);
    }
}
