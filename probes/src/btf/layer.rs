//! One blob of BTF: its header, where each of its types stands, and the fields of a type.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::BtfError;
use super::blob::{Blob, Words};
use super::names::Names;

/// What a type is; numbered as `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An integer, `char` or `bool`.
    Int = 1,
    /// A pointer.
    Ptr = 2,
    /// An array.
    Array = 3,
    /// A struct.
    Struct = 4,
    /// A union.
    Union = 5,
    /// An enum of up to 32 bits.
    Enum = 6,
    /// A struct or union that is only declared.
    Fwd = 7,
    /// A typedef.
    Typedef = 8,
    /// `volatile`.
    Volatile = 9,
    /// `const`.
    Const = 10,
    /// `restrict`.
    Restrict = 11,
    /// A function.
    Func = 12,
    /// What a function takes and returns.
    FuncProto = 13,
    /// A variable.
    Var = 14,
    /// A section of variables.
    DataSec = 15,
    /// A floating-point number (5.13).
    Float = 16,
    /// An attribute of a declaration (5.16).
    DeclTag = 17,
    /// An attribute of a type (5.17).
    TypeTag = 18,
    /// An enum of 64 bits (6.0).
    Enum64 = 19,
    /// A kind that this reader does not know, stepped over by means of the BTF's own layout section.
    Other = 0xff,
}

impl Kind {
    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::DataSec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// The bytes that follow the common part of a type of this kind with `vlen` elements.
    const fn tail(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Enum | Self::FuncProto => vlen * 8,
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => vlen * 12,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag
            | Self::Other => 0,
        }
    }

    /// Whether the kind qualifies or tags the type below it without giving it another name.
    pub(super) const fn is_qualifier(self) -> bool {
        matches!(self, Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag)
    }

    /// Whether a value of the type is one of the type below it, differently named.
    pub(super) const fn is_modifier(self) -> bool {
        matches!(self, Self::Typedef) || self.is_qualifier()
    }
}

/// A type's fields, read in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name_off: u32,
    pub(super) kind: Kind,
    pub(super) kind_flag: bool,
    /// The size, or the id of the type referred to, as the kind has it.
    pub(super) size_or_type: u32,
    tail: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Type of the elements, type of the index, number of elements.
    pub(super) fn array(&self) -> Option<(u32, u32, u32)> {
        Some((word(self.tail, 0)?, word(self.tail, 4)?, word(self.tail, 8)?))
    }

    /// Name, type and offset word of each member of a struct or union.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, u32, u32)> + use<'a> {
        let record = matches!(self.kind, Kind::Struct | Kind::Union);
        let (chunks, _) = if record { self.tail } else { &[] }.as_chunks::<12>();
        chunks.iter().filter_map(|m| Some((word(m, 0)?, word(m, 4)?, word(m, 8)?)))
    }

    /// Name and type of each parameter of a prototype.
    pub(super) fn params(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        let (chunks, _) = self.tail.as_chunks::<8>();
        chunks.iter().filter_map(|p| Some((word(p, 0)?, word(p, 4)?)))
    }

    /// Name and value of each enumerator of either kind of enum, taken as signed.
    ///
    /// The kind flag that says so exists since 6.0; without it an `unsigned` constant of 2^31 or more shows up
    /// negative, which no constant that probes ask for is.
    pub(super) fn enumerators(&self) -> impl Iterator<Item = (u32, i64)> + use<'a> {
        let wide = self.kind == Kind::Enum64;
        let (step, tail) = match (wide, self.kind == Kind::Enum) {
            (true, _) => (12, self.tail),
            (false, true) => (8, self.tail),
            (false, false) => (8, &[][..]),
        };
        tail.chunks_exact(step).filter_map(move |e| {
            let low = word(e, 4)?;
            let value = if wide {
                ((u64::from(word(e, 8)?) << 32) | u64::from(low)).cast_signed()
            } else {
                i64::from(low.cast_signed())
            };
            Some((word(e, 0)?, value))
        })
    }

    /// The component that a declaration tag is on, -1 for the whole.
    pub(super) fn component(&self) -> Option<i32> {
        (self.kind == Kind::DeclTag).then(|| word(self.tail, 0)).flatten().map(u32::cast_signed)
    }
}

/// One blob of BTF with an index of its types.
#[derive(Debug)]
pub(super) struct Layer {
    base: Option<Arc<Layer>>,
    data: Blob,
    types: Range<usize>,
    strings: Range<usize>,
    /// Where type `first_id + i` stands in the type section.
    offsets: Words,
    /// Its kind, kept apart so that a scan for a kind touches little memory.
    kinds: Vec<Kind>,
    first_id: u32,
    first_string: u32,
    names: OnceLock<Names>,
    tags: OnceLock<Vec<Tag>>,
}

/// A declaration tag: what it is on, which component of that, and the offset of its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) target: u32,
    pub(super) component: i32,
    pub(super) name_off: u32,
}

const MAGIC: u16 = 0xeb9f;
/// No name or tag of a kernel comes near this, and many types may share one string.
const MAX_STRING: usize = 4096;
/// Length of the header up to and including the string section's bounds.
const HEADER: usize = 24;
/// The common part of every type.
const TYPE: usize = 12;

impl Layer {
    /// Reads the header and notes every type's place. Ids and strings continue those of `base`.
    pub(super) fn parse(data: Blob, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        let (first_id, first_string) = base.as_ref().map_or((1, 0), |b| (b.next_id(), b.next_string()));
        let header = Header::read(&data)?;
        let section = data.get(header.types.clone()).unwrap_or_default();
        let layout = data.get(header.layout.clone()).unwrap_or_default();
        // A type takes 12 bytes and about as much again: one guess saves most of the growing.
        let guess = section.len() / 24;
        let (mut offsets, mut kinds) = (Vec::with_capacity(guess), Vec::with_capacity(guess));
        let mut offset = 0;
        while offset < section.len() {
            let id = u32::try_from(offsets.len()).ok().and_then(|n| n.checked_add(first_id));
            let id = id.ok_or(BtfError::TooManyTypes)?;
            let info = word(section, offset + 4).ok_or(BtfError::Truncated { id, offset })?;
            let (kind, length) = measure(info, layout, id, offset)?;
            // The sections' bounds are 32-bit numbers, so every place in them is one too.
            offsets.push(u32::try_from(offset).map_err(|_| BtfError::TooManyTypes)?);
            kinds.push(kind);
            offset += length;
            if offset > section.len() {
                return Err(BtfError::Truncated { id, offset: offset - length });
            }
        }
        let (types, strings) = (header.types, header.strings);
        let (names, tags) = (OnceLock::new(), OnceLock::new());
        let offsets = Words::beside(&data, offsets);
        Ok(Self { base, data, types, strings, offsets, kinds, first_id, first_string, names, tags })
    }

    pub(super) fn base(&self) -> Option<&Self> {
        self.base.as_deref()
    }

    pub(super) fn next_id(&self) -> u32 {
        self.first_id.saturating_add(u32::try_from(self.offsets.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn next_string(&self) -> u32 {
        self.first_string.saturating_add(u32::try_from(self.strings.len()).unwrap_or(u32::MAX))
    }

    /// The place of a type in this layer's index; `None` when it is not of this layer.
    fn index(&self, id: u32) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first_id)?).ok()
    }

    /// The layer at or below this one that holds a type.
    fn holding(&self, id: u32) -> Option<&Self> {
        let mut layer = self;
        while id < layer.first_id {
            layer = layer.base()?;
        }
        Some(layer)
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        let layer = self.holding(id)?;
        layer.kinds.get(layer.index(id)?).copied()
    }

    /// The kind of each type of this layer.
    pub(super) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The ids of every type of a kind in this layer, ascending.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = u32> + '_ {
        self.ids().zip(&self.kinds).filter(move |&(_, &k)| k == kind).map(|(id, _)| id)
    }

    /// The ids of every type of this layer, ascending.
    fn ids(&self) -> Range<u32> {
        self.first_id..self.next_id()
    }

    /// The fields of a type of this layer or of one below.
    pub(super) fn entry(&self, id: u32) -> Option<Entry<'_>> {
        let layer = self.holding(id)?;
        let index = layer.index(id)?;
        let kind = *layer.kinds.get(index)?;
        let start = usize::try_from(*layer.offsets.get(index)?).ok()?;
        let section = layer.data.get(layer.types.clone())?;
        let bytes = section.get(start..)?;
        let info = word(bytes, 4)?;
        let tail = bytes.get(TYPE..TYPE + kind.tail(vlen(info)))?;
        Some(Entry {
            name_off: word(bytes, 0)?,
            kind,
            kind_flag: info >> 31 != 0,
            size_or_type: word(bytes, 8)?,
            tail,
        })
    }

    /// The name offset of this layer's type at `index`, without the rest of it, for building the index of names.
    pub(super) fn name_off(&self, index: u32) -> Option<u32> {
        let start = usize::try_from(*self.offsets.get(usize::try_from(index).ok()?)?).ok()?;
        word(self.data.get(self.types.clone())?, start)
    }

    /// The string section from an offset on, which may lie in a layer below.
    pub(super) fn string_tail(&self, offset: u32) -> Option<&[u8]> {
        let mut layer = self;
        while offset < layer.first_string {
            layer = layer.base()?;
        }
        let start = usize::try_from(offset - layer.first_string).ok()?;
        layer.data.get(layer.strings.clone())?.get(start..)
    }

    /// The string at an offset, without its NUL; `None` where it is longer than [`MAX_STRING`].
    pub(super) fn string(&self, offset: u32) -> Option<&[u8]> {
        let bytes = self.string_tail(offset)?;
        bytes.get(..bytes.iter().take(MAX_STRING).position(|&b| b == 0)?)
    }

    /// The index of names, built on the first call.
    pub(super) fn names(&self) -> &Names {
        self.names.get_or_init(|| Names::build(self, &self.data))
    }

    /// The declaration tags of this layer, found on the first call: a scan of all types for each function that is asked
    /// about would cost more than most probes.
    pub(super) fn tags(&self) -> &[Tag] {
        let tag = |id: u32| {
            let entry = self.entry(id)?;
            let (target, component) = (entry.size_or_type, entry.component()?);
            Some(Tag { target, component, name_off: entry.name_off })
        };
        self.tags.get_or_init(|| self.of_kind(Kind::DeclTag).filter_map(tag).collect())
    }

    /// Whether the string at an offset is this one, which needs neither its length nor its validity.
    pub(super) fn string_is(&self, offset: u32, text: &[u8]) -> bool {
        let tail = self.string_tail(offset).unwrap_or_default();
        tail.get(..text.len()) == Some(text) && tail.get(text.len()) == Some(&0)
    }

    /// The first type of this layer, not of those below, with this kind and name.
    pub(super) fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        let same = |id: u32| {
            let entry = self.entry(id)?;
            (entry.kind == kind && self.string_is(entry.name_off, name.as_bytes())).then_some(id)
        };
        // A longer one is nobody's name, and would be compared with every type.
        let mut candidates = self.names().candidates(name.as_bytes()).take_while(|_| name.len() < MAX_STRING);
        candidates.find_map(|index| same(self.first_id.checked_add(index)?))
    }
}

/// The bounds of the sections, checked against the blob.
struct Header {
    types: Range<usize>,
    strings: Range<usize>,
    layout: Range<usize>,
}

impl Header {
    fn read(data: &[u8]) -> Result<Self, BtfError> {
        let magic = data.first_chunk::<2>().ok_or(BtfError::Header("too short"))?;
        match u16::from_le_bytes(*magic) {
            MAGIC => {}
            other if other == MAGIC.swap_bytes() => return Err(BtfError::Header("big-endian")),
            _ => return Err(BtfError::Header("wrong magic")),
        }
        if data.get(2) != Some(&1) {
            return Err(BtfError::Header("unknown version"));
        }
        let length = word(data, 4).and_then(|n| usize::try_from(n).ok());
        let length = length.filter(|&n| n >= HEADER && n <= data.len());
        let length = length.ok_or(BtfError::Header("header length"))?;
        let section = |at| {
            let start = usize::try_from(word(data, at)?).ok()?.checked_add(length)?;
            let end = usize::try_from(word(data, at + 4)?).ok()?.checked_add(start)?;
            (end <= data.len()).then_some(start..end)
        };
        let types = section(8).ok_or(BtfError::Header("type section"))?;
        let strings = section(16).ok_or(BtfError::Header("string section"))?;
        // Newer headers (struct btf_header of mid-2026) have 8 more bytes, for a section that tells how long the types
        // of each kind are. Debian's 7.3 does not have it yet.
        let layout = if length >= HEADER + 8 { section(HEADER) } else { Some(0..0) };
        Ok(Self { types, strings, layout: layout.ok_or(BtfError::Header("layout section"))? })
    }
}

/// Kind and whole length of a type. `layout` is consulted for kinds that this reader does not know.
fn measure(info: u32, layout: &[u8], id: u32, offset: usize) -> Result<(Kind, usize), BtfError> {
    let number = u8::try_from((info >> 24) & 0x7f).unwrap_or(u8::MAX);
    if let Some(kind) = Kind::from_number(number) {
        return Ok((kind, TYPE + kind.tail(vlen(info))));
    }
    // One `struct btf_layout` per kind: bytes after the common part, bytes per element, two bytes of flags.
    let at = usize::from(number) * 4;
    match layout.get(at..at + 4) {
        Some(&[fixed, element, _, _]) if number != 0 => {
            Ok((Kind::Other, TYPE + usize::from(fixed) + usize::from(element) * vlen(info)))
        }
        _ => Err(BtfError::UnknownKind { kind: number, id, offset }),
    }
}

/// The number of elements: 16 bits with 8 unused above them, all 24 in use since the layout section exists.
const fn vlen(info: u32) -> usize {
    (info & 0x00ff_ffff) as usize
}

/// The little-endian 32-bit word at an offset.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|chunk| u32::from_le_bytes(*chunk))
}
