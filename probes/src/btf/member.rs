//! Finding a member of a struct or union by a dotted path.

use super::{Btf, BtfError, Kind, MAX_CHAIN};

/// How many members one look-up reads before it gives up; `struct task_struct` with all it embeds has below 1,000.
const MAX_MEMBERS: usize = 1 << 18;

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset from the start of the record that the path began at, in whole bytes.
    pub byte_offset: u32,
    /// The same offset in bits; for a bit-field not always a multiple of 8.
    pub bit_offset: u32,
    /// Width in bits of a bit-field, 0 for an ordinary member.
    pub bitfield_size: u32,
    /// Size in bytes of the member's type; 0 where it has none.
    pub size: u32,
    /// The member's type as declared, modifiers included.
    pub type_id: u32,
}

/// A member as found in one record.
#[derive(Clone, Copy)]
struct Found {
    bits: u32,
    width: u32,
    type_id: u32,
}

impl Btf {
    /// The member at `path` of the struct, union or typedef called `record`.
    ///
    /// Each part of the path is looked for in the record and in its anonymous structs and unions; a dot leads into
    /// an embedded struct or union, never through a pointer: `member("vm_area_struct", "vm_mm")`,
    /// `member("file", "f_path.dentry")`.
    ///
    /// # Errors
    /// [`BtfError::NoRecord`], [`BtfError::NoMember`], [`BtfError::NotEmbedded`], [`BtfError::Broken`].
    pub fn member(&self, record: &str, path: &str) -> Result<Member, BtfError> {
        let id = self.record(record).or_else(|| self.find(Kind::Typedef, record));
        let id = id.ok_or_else(|| BtfError::NoRecord(record.to_owned()))?;
        match self.record_below(id) {
            Some(id) => self.member_of(id, path),
            None => Err(BtfError::NoRecord(record.to_owned())),
        }
    }

    /// As [`Btf::member`], from the id of a struct or union.
    ///
    /// # Errors
    /// As [`Btf::member`].
    pub fn member_of(&self, record: u32, path: &str) -> Result<Member, BtfError> {
        let mut inside = record;
        let mut bits: u32 = 0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let found = self.find_member(inside, part)?;
            bits = bits.checked_add(found.bits).ok_or(BtfError::Broken(inside))?;
            if parts.peek().is_none() {
                return Ok(Member {
                    byte_offset: bits / 8,
                    bit_offset: bits,
                    bitfield_size: found.width,
                    size: self.size_of(found.type_id).unwrap_or(0),
                    type_id: found.type_id,
                });
            }
            inside =
                self.record_below(found.type_id).ok_or_else(|| BtfError::NotEmbedded(part.to_owned()))?;
        }
        Err(BtfError::Broken(record)) // not reached: splitting a string yields at least one part
    }

    /// Name, type and bit offset of the members of a struct or union, in order; anonymous ones have no name.
    #[must_use]
    pub fn members(&self, record: u32) -> Vec<(String, u32, u32)> {
        let Some(entry) = self.own.entry(record) else { return Vec::new() };
        let flag = entry.kind_flag;
        entry
            .members()
            .map(|(name, type_id, place)| {
                (self.string(name).unwrap_or_default().to_owned(), type_id, split(flag, place).0)
            })
            .collect()
    }

    /// The struct or union that a type is, below modifiers and typedefs.
    fn record_below(&self, id: u32) -> Option<u32> {
        let id = self.skip_modifiers(id)?;
        matches!(self.kind(id)?, Kind::Struct | Kind::Union).then_some(id)
    }

    /// Looks for a name in a record and its anonymous records, which are kept on a stack of bounded depth.
    fn find_member(&self, record: u32, name: &str) -> Result<Found, BtfError> {
        let mut open = vec![(record, 0u32, 0usize)];
        let mut budget = MAX_MEMBERS;
        while let Some((id, base, depth)) = open.pop() {
            let entry = self.own.entry(id).ok_or(BtfError::Broken(id))?;
            for (member, type_id, place) in entry.members() {
                budget = budget.checked_sub(1).ok_or(BtfError::Broken(record))?;
                let (offset, width) = split(entry.kind_flag, place);
                let bits = base.checked_add(offset).ok_or(BtfError::Broken(id))?;
                // By bytes: the records that probes ask about have hundreds of members.
                if !name.is_empty() && self.own.string_is(member, name.as_bytes()) {
                    return Ok(Found { bits, width, type_id });
                }
                let anonymous = self.own.string_is(member, b"").then(|| self.record_below(type_id)).flatten();
                if let Some(inner) = anonymous.filter(|_| depth < MAX_CHAIN) {
                    open.push((inner, bits, depth + 1));
                }
            }
        }
        let record = self.name(record).unwrap_or("(anonymous)").to_owned();
        Err(BtfError::NoMember { record, member: name.to_owned() })
    }
}

/// Bit offset and bit-field width in a member's offset word: with the kind flag the upper byte is the width.
const fn split(kind_flag: bool, place: u32) -> (u32, u32) {
    if kind_flag { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) }
}
