//! A reader of BTF: the kernel's own (`/sys/kernel/btf/vmlinux`), that of modules, and that of programs.
//!
//! It is made for one cheap pass at the start of a slow, emulated machine: [`Btf::parse`] only notes where each
//! type stands, names are hashed on the first look-up (`names`), and everything else is read in place.
//! What it reads may be damaged or hostile: no walk recurses, and each has a bound. Format:
//! include/uapi/linux/btf.h; writing BTF is [`crate::btf_build`]'s work.

use std::sync::Arc;

use thiserror::Error;

mod blob;
mod layer;
mod member;
mod names;
mod render;
#[cfg(test)]
mod tests;

use blob::Blob;
pub use layer::Kind;
use layer::Layer;
pub use member::Member;

/// How many modifiers, typedefs, arrays or pointers a walk follows before it calls the chain broken.
///
/// The kernel's own resolver stops at 32 (`MAX_RESOLVE_DEPTH`, 6.12 kernel/bpf/btf.c).
const MAX_CHAIN: usize = 64;

/// Why BTF could not be read or does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// The header is damaged, of another byte order, or of another format.
    #[error("not BTF that this reader knows: {0}")]
    Header(&'static str),
    /// A type is of a kind that this reader does not know, and the BTF does not say how long it is.
    #[error("type {id} at offset {offset} is of the unknown kind {kind}")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
        /// The id of the type.
        id: u32,
        /// Where the type stands, in bytes from the start of the type section.
        offset: usize,
    },
    /// A type reaches beyond the end of the type section.
    #[error("type {id} at offset {offset} is cut off")]
    Truncated {
        /// The id of the type.
        id: u32,
        /// Where the type stands, in bytes from the start of the type section.
        offset: usize,
    },
    /// There are more types than ids.
    #[error("too many types")]
    TooManyTypes,
    /// No struct, union or typedef of one has this name.
    #[error("no struct or union `{0}`")]
    NoRecord(String),
    /// A record has no such member.
    #[error("`{record}` has no member `{member}`")]
    NoMember {
        /// The record, as it was asked for or as the path led to it.
        record: String,
        /// The part of the path that was not found.
        member: String,
    },
    /// A part of a path that is not the last is not an embedded struct or union.
    #[error("member `{0}` is not an embedded struct or union")]
    NotEmbedded(String),
    /// A walk ended at a missing type or did not end at all.
    #[error("type {0} leads nowhere")]
    Broken(u32),
}

/// Parsed BTF, possibly on top of another. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Btf {
    own: Arc<Layer>,
}

/// What a function takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// The type of the return value; 0 is `void`.
    pub ret: u32,
    /// Name and type of each parameter, in order. A last parameter of type 0 without a name is `...`.
    pub params: Vec<(String, u32)>,
}

impl Btf {
    /// Reads BTF that stands on its own, such as `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// [`BtfError::Header`], [`BtfError::UnknownKind`], [`BtfError::Truncated`], [`BtfError::TooManyTypes`].
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, BtfError> {
        Ok(Self { own: Arc::new(Layer::parse(Blob::Own(bytes.into()), None)?) })
    }

    /// As [`Btf::parse`], the bytes kept in memory that a forked process shares: copying the page tables of megabytes
    /// costs more than most probes do. Where the system gives no such memory, they are kept as [`Btf::parse`] does.
    ///
    /// # Errors
    /// As [`Btf::parse`].
    pub fn parse_shared(bytes: &[u8]) -> Result<Self, BtfError> {
        Ok(Self { own: Arc::new(Layer::parse(Blob::shared(bytes), None)?) })
    }

    /// Reads the BTF of a module, whose ids and strings continue those of `base`.
    ///
    /// # Errors
    /// As [`Btf::parse`].
    pub fn parse_split(base: &Self, bytes: impl Into<Vec<u8>>) -> Result<Self, BtfError> {
        Ok(Self { own: Arc::new(Layer::parse(Blob::Own(bytes.into()), Some(Arc::clone(&base.own)))?) })
    }

    /// The id that the next type would have; ids run from 1 to this one exclusively.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.own.next_id()
    }

    /// The string offset that the next layer's strings begin at.
    #[must_use]
    pub fn next_string(&self) -> u32 {
        self.own.next_string()
    }

    /// Builds the indexes of names now, so that processes forked from this one share them.
    pub fn warm(&self) {
        for layer in self.layers() {
            let _built = (layer.names(), layer.tags());
        }
    }

    /// The first type of this kind and name; a module's own before those of its base.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        self.layers().find_map(|layer| layer.find(kind, name))
    }

    /// The function called `name`.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(Kind::Func, name)
    }

    /// Whether `bpf_task_acquire` counts in a task's `usage`, not in its `rcu_users`, and so always gives one. A program must
    /// then not ask whether it did: where it finds nothing, it would keep the reference (6.3 kernel/bpf/verifier.c,
    /// `reg_type_not_null`, does not know that a trusted pointer is none). It may give nothing since it does what
    /// `bpf_task_acquire_not_zero` did, which went then (6.3 and 6.4 kernel/bpf/helpers.c).
    #[must_use]
    pub fn task_acquire_always_gives(&self) -> bool {
        self.function("bpf_task_acquire_not_zero").is_some()
    }

    /// Whether the kernel's list of helpers has the one with this number; `None` where there is no list.
    #[must_use]
    pub fn lists_helper(&self, helper: u32) -> Option<bool> {
        let list = self.find(Kind::Enum, "bpf_func_id")?;
        let name = crate::helper::name(helper).unwrap_or_default();
        Some(self.enum_value(Some(list), &format!("BPF_FUNC_{name}")).is_some())
    }

    /// Every function of this BTF with its id, without those of its base, in order of ids.
    pub fn functions(&self) -> impl Iterator<Item = (u32, &str)> {
        self.own.of_kind(Kind::Func).filter_map(|id| self.name(id).map(|name| (id, name)))
    }

    /// The struct or else the union called `name`.
    #[must_use]
    pub fn record(&self, name: &str) -> Option<u32> {
        self.find(Kind::Struct, name).or_else(|| self.find(Kind::Union, name))
    }

    /// The kind of a type; `None` for an id that does not exist, and for 0, `void`.
    #[must_use]
    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.own.kind(id)
    }

    /// The name of a type, `None` where it has none.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&str> {
        let name = self.string(self.own.entry(id)?.name_off)?;
        (!name.is_empty()).then_some(name)
    }

    /// The type below typedefs, `const`, `volatile`, `restrict` and type tags; 0 is `void`.
    ///
    /// `None` when the chain is cyclic or leads to a type that does not exist.
    #[must_use]
    pub fn skip_modifiers(&self, id: u32) -> Option<u32> {
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            if id == 0 {
                return Some(0);
            }
            let entry = self.own.entry(id)?;
            if !entry.kind.is_modifier() {
                return Some(id);
            }
            id = entry.size_or_type;
        }
        None
    }

    /// The type that a pointer points to, modifiers of the pointer skipped.
    #[must_use]
    pub fn pointee(&self, id: u32) -> Option<u32> {
        let id = self.skip_modifiers(id)?;
        let entry = self.own.entry(id)?;
        (entry.kind == Kind::Ptr).then_some(entry.size_or_type)
    }

    /// The size of a value of this type in bytes, `None` for what has none (`void`, functions, forward declarations).
    #[must_use]
    pub fn size_of(&self, id: u32) -> Option<u32> {
        let mut id = id;
        let mut count: u32 = 1;
        for _ in 0..MAX_CHAIN {
            let entry = self.own.entry(id)?;
            let size = match entry.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float
                | Kind::DataSec => entry.size_or_type,
                Kind::Ptr => 8, // every kernel of the suite is of 64 bits
                Kind::Array => {
                    let (element, _, length) = entry.array()?;
                    count = count.checked_mul(length)?;
                    id = element;
                    continue;
                }
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag | Kind::Var => {
                    id = entry.size_or_type;
                    continue;
                }
                Kind::Fwd | Kind::Func | Kind::FuncProto | Kind::DeclTag | Kind::Other => return None,
            };
            return size.checked_mul(count);
        }
        None
    }

    /// The prototype of a function, given the id of the function or of a bare prototype.
    #[must_use]
    pub fn prototype(&self, id: u32) -> Option<Prototype> {
        let entry = self.own.entry(id)?;
        let proto = if entry.kind == Kind::Func { self.own.entry(entry.size_or_type)? } else { entry };
        if proto.kind != Kind::FuncProto {
            return None;
        }
        let params = proto.params().map(|(name, id)| (self.string(name).unwrap_or_default().to_owned(), id));
        Some(Prototype { ret: proto.size_or_type, params: params.collect() })
    }

    /// The value of an enumerator, in the enum given or in any enum.
    #[must_use]
    pub fn enum_value(&self, enumeration: Option<u32>, name: &str) -> Option<i64> {
        let Some(id) = enumeration else {
            return self.layers().find_map(|layer| {
                let kinds = [Kind::Enum, Kind::Enum64];
                kinds
                    .into_iter()
                    .flat_map(|kind| layer.of_kind(kind))
                    .find_map(|id| self.enumerator(id, name))
            });
        };
        self.enumerator(self.skip_modifiers(id)?, name)
    }

    /// The declaration tags of a type as a whole (not of one of its members or parameters), such as
    /// `bpf_kfunc` on a function of newer kernels (not of 6.1).
    #[must_use]
    pub fn decl_tags(&self, target: u32) -> Vec<String> {
        self.component_tags(target, -1)
    }

    /// The declaration tags of a component of a type: the member of a record or the parameter of a function with
    /// this index, or the type as a whole for -1.
    #[must_use]
    pub fn component_tags(&self, target: u32, component: i32) -> Vec<String> {
        let here = |tag: &&layer::Tag| tag.target == target && tag.component == component;
        let text = |tag: &layer::Tag| self.string(tag.name_off).unwrap_or_default().to_owned();
        self.layers().flat_map(Layer::tags).filter(here).map(text).collect()
    }

    /// The names of the functions with this declaration tag, without those of the base.
    #[must_use]
    pub fn functions_tagged(&self, text: &str) -> Vec<&str> {
        let tagged = |tag: &&layer::Tag| {
            tag.component == -1
                && self.own.string_is(tag.name_off, text.as_bytes())
                && self.kind(tag.target) == Some(Kind::Func)
        };
        self.own.tags().iter().filter(tagged).filter_map(|tag| self.name(tag.target)).collect()
    }

    fn enumerator(&self, id: u32, name: &str) -> Option<i64> {
        let entry = self.own.entry(id)?;
        entry
            .enumerators()
            .find(|&(offset, _)| self.own.string_is(offset, name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// This BTF's own layer, then those below.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::successors(Some(&*self.own), |layer| layer.base())
    }

    /// The string at an offset; `None` beyond the end of the strings or where it is not UTF-8.
    fn string(&self, offset: u32) -> Option<&str> {
        std::str::from_utf8(self.own.string(offset)?).ok()
    }
}
