//! One BPF instruction as the kernel lays it out (`struct bpf_insn`), its registers, sizes and opcode parts.
//!
//! [`crate::asm`] puts instructions together, [`crate::disasm`] shows them. Layout and numbers are those of
//! include/uapi/linux/bpf.h and bpf_common.h; the register nibbles are in the order of a little-endian machine,
//! the only kind this suite boots.

/// A register of the BPF machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reg {
    /// Return value of calls and of the program.
    R0,
    /// First argument, and the context on entry.
    R1,
    /// Second argument.
    R2,
    /// Third argument.
    R3,
    /// Fourth argument.
    R4,
    /// Fifth argument.
    R5,
    /// Kept across calls.
    R6,
    /// Kept across calls.
    R7,
    /// Kept across calls.
    R8,
    /// Kept across calls.
    R9,
    /// Frame pointer, read-only.
    R10,
}

impl Reg {
    /// The register's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The width of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// One byte.
    B,
    /// Two bytes.
    H,
    /// Four bytes.
    W,
    /// Eight bytes.
    DW,
}

impl Size {
    /// The bits of an opcode that say this width.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::W => 0x00,
            Self::H => 0x08,
            Self::B => 0x10,
            Self::DW => 0x18,
        }
    }

    /// The narrowest width that holds `bytes` bytes exactly, for member sizes read from BTF.
    #[must_use]
    pub const fn of(bytes: u32) -> Option<Self> {
        match bytes {
            1 => Some(Self::B),
            2 => Some(Self::H),
            4 => Some(Self::W),
            8 => Some(Self::DW),
            _ => None,
        }
    }
}

/// Parts of opcodes: classes, operations, modes and pseudo sources, without their `BPF_` prefix.
pub mod op {
    /// Class of `ld_imm64` and of the packet loads.
    pub const LD: u8 = 0x00;
    /// Class of loads into a register.
    pub const LDX: u8 = 0x01;
    /// Class of stores of an immediate.
    pub const ST: u8 = 0x02;
    /// Class of stores of a register, and of the atomics.
    pub const STX: u8 = 0x03;
    /// Class of 32-bit arithmetic.
    pub const ALU: u8 = 0x04;
    /// Class of 64-bit jumps, calls and exit.
    pub const JMP: u8 = 0x05;
    /// Class of jumps on the low 32 bits.
    pub const JMP32: u8 = 0x06;
    /// Class of 64-bit arithmetic.
    pub const ALU64: u8 = 0x07;

    /// The second operand is a register.
    pub const X: u8 = 0x08;
    /// The second operand is the immediate.
    pub const K: u8 = 0x00;

    /// Mode of `ld_imm64`.
    pub const IMM: u8 = 0x00;
    /// Mode of an ordinary access.
    pub const MEM: u8 = 0x60;
    /// Mode of a sign-extending load (6.6).
    pub const MEMSX: u8 = 0x80;
    /// Mode of an atomic access; before 5.12 only addition, then called `BPF_XADD`.
    pub const ATOMIC: u8 = 0xc0;

    /// Arithmetic: addition.
    pub const ADD: u8 = 0x00;
    /// Arithmetic: subtraction.
    pub const SUB: u8 = 0x10;
    /// Arithmetic: multiplication.
    pub const MUL: u8 = 0x20;
    /// Arithmetic: division, unsigned unless the offset is 1.
    pub const DIV: u8 = 0x30;
    /// Arithmetic: bitwise or.
    pub const OR: u8 = 0x40;
    /// Arithmetic: bitwise and.
    pub const AND: u8 = 0x50;
    /// Arithmetic: shift left.
    pub const LSH: u8 = 0x60;
    /// Arithmetic: logical shift right.
    pub const RSH: u8 = 0x70;
    /// Arithmetic: negation.
    pub const NEG: u8 = 0x80;
    /// Arithmetic: remainder, unsigned unless the offset is 1.
    pub const MOD: u8 = 0x90;
    /// Arithmetic: bitwise exclusive or.
    pub const XOR: u8 = 0xa0;
    /// Arithmetic: move; sign-extending when the offset is 8, 16 or 32.
    pub const MOV: u8 = 0xb0;
    /// Arithmetic: shift right keeping the sign.
    pub const ARSH: u8 = 0xc0;
    /// Arithmetic: change of byte order.
    pub const END: u8 = 0xd0;

    /// Jump always.
    pub const JA: u8 = 0x00;
    /// Jump if equal.
    pub const JEQ: u8 = 0x10;
    /// Jump if greater, unsigned.
    pub const JGT: u8 = 0x20;
    /// Jump if greater or equal, unsigned.
    pub const JGE: u8 = 0x30;
    /// Jump if a bit is set in both.
    pub const JSET: u8 = 0x40;
    /// Jump if not equal.
    pub const JNE: u8 = 0x50;
    /// Jump if greater, signed.
    pub const JSGT: u8 = 0x60;
    /// Jump if greater or equal, signed.
    pub const JSGE: u8 = 0x70;
    /// Call of a helper, a kfunc or a subprogram.
    pub const CALL: u8 = 0x80;
    /// Return.
    pub const EXIT: u8 = 0x90;
    /// Jump if less, unsigned.
    pub const JLT: u8 = 0xa0;
    /// Jump if less or equal, unsigned.
    pub const JLE: u8 = 0xb0;
    /// Jump if less, signed.
    pub const JSLT: u8 = 0xc0;
    /// Jump if less or equal, signed.
    pub const JSLE: u8 = 0xd0;
    /// Conditional pseudo jump, `may_goto` (6.9).
    pub const JCOND: u8 = 0xe0;

    /// `ld_imm64` of a map by its file descriptor.
    pub const PSEUDO_MAP_FD: u8 = 1;
    /// `ld_imm64` of an address inside the value of an array map.
    pub const PSEUDO_MAP_VALUE: u8 = 2;
    /// `ld_imm64` of a kernel variable by BTF id (5.10).
    pub const PSEUDO_BTF_ID: u8 = 3;
    /// `ld_imm64` of a subprogram's address, for callbacks (5.13).
    pub const PSEUDO_FUNC: u8 = 4;
    /// `ld_imm64` of a map by its index in `fd_array` (5.14).
    pub const PSEUDO_MAP_IDX: u8 = 5;
    /// `ld_imm64` of a map value by the map's index in `fd_array` (5.14).
    pub const PSEUDO_MAP_IDX_VALUE: u8 = 6;
    /// Call of a subprogram.
    pub const PSEUDO_CALL: u8 = 1;
    /// Call of a kfunc (5.13).
    pub const PSEUDO_KFUNC_CALL: u8 = 2;

    /// Atomic: also fetch the old value into the source register (5.12).
    pub const FETCH: i32 = 0x01;
    /// Atomic: exchange (5.12).
    pub const XCHG: i32 = 0xe1;
    /// Atomic: compare with R0 and exchange (5.12).
    pub const CMPXCHG: i32 = 0xf1;
    /// Atomic: load-acquire (6.15).
    pub const LOAD_ACQ: i32 = 0x100;
    /// Atomic: store-release (6.15).
    pub const STORE_REL: i32 = 0x110;
}

/// One instruction slot, laid out as `struct bpf_insn`. A wide load takes two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Insn {
    /// The opcode.
    pub code: u8,
    /// Destination register in the low half, source register in the high half.
    pub regs: u8,
    /// The signed offset.
    pub off: i16,
    /// The signed immediate.
    pub imm: i32,
}

impl Insn {
    /// The opcode of `ld_imm64`, the only instruction of two slots.
    pub const WIDE: u8 = op::LD | op::IMM | 0x18;

    /// An instruction from its parts; the register numbers are cut to four bits.
    #[must_use]
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        Self { code, regs: (dst & 0xf) | (src << 4), off, imm }
    }

    /// The number of the destination register, which need not be a valid one.
    #[must_use]
    pub const fn dst(&self) -> u8 {
        self.regs & 0xf
    }

    /// The number of the source register or the pseudo source.
    #[must_use]
    pub const fn src(&self) -> u8 {
        self.regs >> 4
    }

    /// The class bits of the opcode.
    #[must_use]
    pub const fn class(&self) -> u8 {
        self.code & 0x07
    }

    /// Whether the next slot belongs to this instruction.
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        self.code == Self::WIDE
    }

    /// The eight bytes that the kernel reads.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let off = self.off.to_le_bytes();
        let imm = self.imm.to_le_bytes();
        [self.code, self.regs, off[0], off[1], imm[0], imm[1], imm[2], imm[3]]
    }

    /// The instruction in eight bytes from the kernel.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        let [code, regs, off0, off1, imm0, imm1, imm2, imm3] = bytes;
        Self {
            code,
            regs,
            off: i16::from_le_bytes([off0, off1]),
            imm: i32::from_le_bytes([imm0, imm1, imm2, imm3]),
        }
    }
}

/// The bytes of a program, eight per slot.
#[must_use]
pub fn to_bytes(insns: &[Insn]) -> Vec<u8> {
    insns.iter().flat_map(|insn| insn.to_bytes()).collect()
}

/// The program in `bytes`; an incomplete last slot is dropped.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Vec<Insn> {
    let (slots, _rest) = bytes.as_chunks::<8>();
    slots.iter().map(|&slot| Insn::from_bytes(slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<Insn>(), 8);
        let insn = Insn::new(op::STX | op::MEM | Size::DW.code(), 10, 6, -8, 0);
        assert_eq!(insn.to_bytes(), [0x7b, 0x6a, 0xf8, 0xff, 0, 0, 0, 0]);
        assert_eq!((insn.dst(), insn.src()), (10, 6));
    }

    #[test]
    fn bytes_survive_the_way_there_and_back() {
        let insns = [Insn::new(Insn::WIDE, 1, 2, 0, 7), Insn::new(0, 0, 0, 0, -1)];
        let mut bytes = to_bytes(&insns);
        assert_eq!(from_bytes(&bytes), insns);
        bytes.push(0);
        assert_eq!(from_bytes(&bytes), insns);
    }
}
