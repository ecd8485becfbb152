// The places at which Bochs calls instrumentation: two are used, see amx_state.cc.
#ifndef AMX_MACHINE_INSTRUMENT_H
#define AMX_MACHINE_INSTRUMENT_H

class bxInstruction_c;

void adjust_instruction(bxInstruction_c *instruction);
void complete_amx();

#define BX_INSTR_OPCODE(cpu, instruction, bytes, length, is32, is64) adjust_instruction(instruction)
#define BX_INSTR_RESET(cpu, type) complete_amx()

#define BX_INSTR_INIT_ENV()
#define BX_INSTR_EXIT_ENV()
#define BX_INSTR_INITIALIZE(cpu)
#define BX_INSTR_EXIT(cpu)
#define BX_INSTR_HLT(cpu)
#define BX_INSTR_MWAIT(cpu, address, length, flags)
#define BX_INSTR_DEBUG_PROMPT()
#define BX_INSTR_DEBUG_CMD(command)
#define BX_INSTR_NEAR_BRANCH_TAKEN(cpu, what, from, to)
#define BX_INSTR_NEAR_BRANCH_NOT_TAKEN(cpu, from)
#define BX_INSTR_FAR_BRANCH(cpu, what, from_cs, from, to_cs, to)
#define BX_INSTR_EXCEPTION(cpu, vector, code)
#define BX_INSTR_INTERRUPT(cpu, vector)
#define BX_INSTR_HWINTERRUPT(cpu, vector, cs, address)
#define BX_INSTR_CLFLUSH(cpu, linear, physical)
#define BX_INSTR_CACHE_CNTRL(cpu, what)
#define BX_INSTR_TLB_CNTRL(cpu, what, cr3)
#define BX_INSTR_PREFETCH_HINT(cpu, what, segment, offset)
#define BX_INSTR_BEFORE_EXECUTION(cpu, instruction)
#define BX_INSTR_AFTER_EXECUTION(cpu, instruction)
#define BX_INSTR_REPEAT_ITERATION(cpu, instruction)
#define BX_INSTR_LIN_ACCESS(cpu, linear, physical, length, type, rw)
#define BX_INSTR_PHY_ACCESS(cpu, physical, length, type, rw)
#define BX_INSTR_INP(port, length)
#define BX_INSTR_INP2(port, length, value)
#define BX_INSTR_OUTP(port, length, value)
#define BX_INSTR_CPUID(cpu)
#define BX_INSTR_WRMSR(cpu, msr, value)
#define BX_INSTR_VMEXIT(cpu, reason, qualification)

#endif  // AMX_MACHINE_INSTRUMENT_H
