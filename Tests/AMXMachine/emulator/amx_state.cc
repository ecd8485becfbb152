// What Bochs (August 2026) lacks or gets wrong of a CPU on which Linux gives tiles to
// processes, put into it through its instrumentation interface:
//
//   - extended feature disable (XFD), without which Linux gives nobody tiles;
//   - saving and restoring: Bochs exchanges rows and columns of the configuration,
//     leaves out half of each tile, and all tiles just when some are in use;
//   - VCVTNE2PS2BF16, whose upper half Bochs takes from beyond its operand.
//
// The other instructions, those of tiles among them, are Bochs's own.
#define NEED_CPU_REG_SHORTCUTS 1  // for the macros that end a handler
#include "bochs.h"
#include "cpu/cpu.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/decoder/ia_opcodes.h"
#include "cpu/softfloat3e/include/softfloat.h"
#include "cpu/avx/amx.h"
#include "cpu/avx/bf16.h"
#include "cpu/cpudb/intel/sapphire_rapids.h"

#define CPU BX_CPU(0)

extern XSaveRestoreStateHelper xsave_restore[];

namespace {

const Bit64u tile_data = 1 << xcr0_t::BX_XCR0_XTILEDATA_BIT;
const unsigned xfd_registers[] = {BX_MSR_IA32_XFD, BX_MSR_IA32_XFD_ERROR};

// Bytes of a row before rows, as LDTILECFG has them.
void save_configuration(bxInstruction_c *instruction, bx_address offset) {
  BxPackedZmmRegister memory;
  memory.clear();
  if (CPU->amx->tiles_configured()) {
    memory.zmmubyte(0) = CPU->amx->palette_id;
    memory.zmmubyte(1) = CPU->amx->start_row;
    for (unsigned tile = 0; tile < BX_TILE_REGISTERS; tile++) {
      memory.zmm16u(8 + tile) = CPU->amx->tile_bytes_per_row(tile);
      memory.zmmubyte(48 + tile) = CPU->amx->tile_num_rows(tile);
    }
  }
  CPU->write_virtual_zmmword(instruction->seg(), offset, &memory);
}

template <typename Row>
void for_each_row(bx_address offset, Row row) {
  for (unsigned tile = 0; tile < BX_TILE_REGISTERS; tile++)
    for (unsigned i = 0; i < BX_TILE_MAX_ROWS; i++, offset += 64) row(offset, &CPU->amx->tile[tile].row[i]);
}

void save_tiles(bxInstruction_c *instruction, bx_address start) {
  for_each_row(start, [=](bx_address offset, BxPackedZmmRegister *row) {
    CPU->write_virtual_zmmword(instruction->seg(), offset, row);
  });
}

void restore_tiles(bxInstruction_c *instruction, bx_address start) {
  for_each_row(start, [=](bx_address offset, BxPackedZmmRegister *row) {
    CPU->read_virtual_zmmword(instruction->seg(), offset, row);
  });
  for (unsigned tile = 0; tile < BX_TILE_REGISTERS; tile++) CPU->amx->set_tile_used(tile);
}

bool tiles_in_use() { return CPU->amx->tile_use_tracker != 0; }

struct with_xfd final : sapphire_rapids_t {
  using sapphire_rapids_t::sapphire_rapids_t;

  void get_cpuid_leaf(Bit32u function, Bit32u subfunction, cpuid_function_t *leaf) const override {
    sapphire_rapids_t::get_cpuid_leaf(function, subfunction, leaf);
    if (function == 0xd && subfunction == 1) {
      leaf->eax |= 1 << 4;
      leaf->ebx = compacted_size(cpu->xcr0.get32() | cpu->msr.ia32_xss);
    }
    // Fast short string moves: Bochs says that fast strings are off, and Linux 6.1,
    // told this and that, moves short strings with no end.
    if (function == 7 && subfunction == 0) leaf->edx &= ~(1 << 4);
  }

 private:
  static unsigned compacted_size(Bit64u components) {
    unsigned size = XSAVE_YMM_STATE_OFFSET;
    for (unsigned i = xcr0_t::BX_XCR0_YMM_BIT; i < xcr0_t::BX_XCR0_LAST; i++) {
      if (!(components >> i & 1)) continue;
      if (xsave_restore[i].attr & BX_XSAVE_ALIGN64) size = (size + 63) / 64 * 64;
      size += xsave_restore[i].len;
    }
    return size;
  }
};

// Bochs's own, of the instructions that XFD disables.
BxExecutePtr_tR handlers[BX_IA_LAST];

void BX_CPP_AttrRegparmN(1) unless_disabled(bxInstruction_c *instruction) {
  if (CPU->msrs[BX_MSR_IA32_XFD]->get64() & tile_data) {
    CPU->msrs[BX_MSR_IA32_XFD_ERROR]->set64(tile_data);
    CPU->exception(BX_NM_EXCEPTION, 0);
  }
  handlers[instruction->getIaOpcode()](instruction);
}

void BX_CPP_AttrRegparmN(1) convert_two(bxInstruction_c *instruction) {
  const BxPackedZmmRegister upper = BX_READ_AVX_REG(instruction->src1());
  const BxPackedZmmRegister lower = BX_READ_AVX_REG(instruction->src2());
  const unsigned length = instruction->getVL(), count = DWORD_ELEMENTS(length);
  BxPackedZmmRegister result;
  for (unsigned i = 0; i < count; i++) {
    result.zmm16u(i) = convert_ne_fp32_to_bfloat16(lower.zmm32u(i));
    result.zmm16u(count + i) = convert_ne_fp32_to_bfloat16(upper.zmm32u(i));
  }
  if (instruction->opmask()) {
    CPU->avx512_write_regw_masked(instruction, &result, length, BX_READ_32BIT_OPMASK(instruction->opmask()));
  } else {
    BX_WRITE_AVX_REGZ(instruction->dst(), result, length);
  }
  BX_NEXT_INSTR(instruction);
}

}  // namespace

// Called when an instruction has been decoded and given its handler.
void adjust_instruction(bxInstruction_c *instruction) {
  switch (const unsigned opcode = instruction->getIaOpcode()) {
    case BX_IA_EVEX_VCVTNE2PS2BF16_VphHpsWps_Kmask: {
      BxExecutePtr_tR wrong = &BX_CPU_C::VCVTNE2PS2BF16_MASK_VphHpsWpsR;
      if (instruction->execute1 == wrong)
        instruction->execute1 = convert_two;
      else if (instruction->execute2() == wrong)
        instruction->handlers.execute2 = convert_two;
      break;
    }
    case BX_IA_LDTILECFG:
    case BX_IA_TILELOADD_TnnnMdq:
    case BX_IA_TILELOADDT1_TnnnMdq:
    case BX_IA_TILESTORED_MdqTnnn:
    case BX_IA_TILEZERO_Tnnn:
    case BX_IA_TDPBF16PS_TnnnTrmTreg:
      if (instruction->execute1 == &BX_CPU_C::BxNoAMX || instruction->execute1 == &BX_CPU_C::BxError) break;
      handlers[opcode] = instruction->execute1;
      instruction->execute1 = unless_disabled;
      break;
  }
}

// Called at the end of each reset.
void complete_amx() {
  delete CPU->cpuid;
  CPU->cpuid = new with_xfd(CPU);
  for (const unsigned index : xfd_registers) {
    delete CPU->msrs[index];
    CPU->msrs[index] = new MSR(index, Bit64u(0), ~tile_data);
  }
  XSaveRestoreStateHelper &configuration = xsave_restore[xcr0_t::BX_XCR0_XTILECFG_BIT];
  configuration.xsave_method = save_configuration;
  XSaveRestoreStateHelper &tiles = xsave_restore[xcr0_t::BX_XCR0_XTILEDATA_BIT];
  tiles.attr |= BX_XSAVE_XFD_SUPPORT;
  tiles.xstate_in_use_method = tiles_in_use;
  tiles.xsave_method = save_tiles;
  tiles.xrstor_method = restore_tiles;
}
