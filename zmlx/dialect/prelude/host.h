// SPDX-License-Identifier: MIT
// Runs a translated kernel on the host. The threads of a threadgroup are fibers
// of one system thread: each runs until it waits for others (at a barrier or a
// SIMD-group function), then the next one runs. Kernels without such words run
// as plain loops.
#pragma once

#define ZM_ABI 2

namespace metal {

struct zm_buffer {
  void* data;
  const int* shape;
  const long* strides; // in elements
  int ndim;
  long bytes; // that may be touched
};

// One thing that the checked mode found.
struct zm_finding {
  int kind;
  int line; // negative: of the header
  uint thread[3];
  long index, limit;
  const char* name;
};
constexpr int zm_max_findings = 8;
enum zm_kind {
  zm_out_of_bounds = 1,
  zm_unwritten_read = 2,
  zm_divergent_barrier = 3,
  zm_divergent_simd = 4,
  zm_group_memory = 5,
  zm_misaligned = 6
};

struct zm_launch {
  int abi;
  int num_buffers;
  const zm_buffer* buffers;
  uint grid[3]; // threads
  uint group[3]; // threads of a full threadgroup
  long begin, end; // threadgroups to run, counted x first
  zm_finding* findings; // zm_max_findings, or null
  int* num_findings;
  char* workspace; // of this system thread: zm_workspace bytes, zero at first
};

constexpr int zm_width = 32; // threads of a SIMD-group
constexpr int zm_max_threads = 1024; // of a threadgroup
constexpr long zm_stack = 64 << 10; // bytes of a fiber; frames are limited too
constexpr int zm_max_arrays = 64; // threadgroup variables of a kernel
constexpr uint zm_metal_group_bytes = 32 << 10;

enum zm_status { zm_ready, zm_at_simd, zm_at_barrier, zm_done };

struct zm_fiber {
  void* stack_pointer;
  zm_status status;
  int line;
  uint3 position; // in the threadgroup
  void (*meet)(zm_fiber* first, int count, uint mask);
  int arg;
  alignas(64) char slot[64]; // what it brings to a SIMD-group function
};

struct zm_group_array {
  char* data;
  char* written; // checked mode: a flag for each byte
  long bytes;
};

// One system thread's state.
struct zm_worker {
  const zm_launch* launch;
  zm_fiber* fibers;
  char* stacks;
  char* memory; // threadgroup memory, for zm_max_arrays of the largest size
  char* written; // checked mode: flags for it
  long memory_used;
  zm_group_array arrays[zm_max_arrays];
  int count; // threads of the running threadgroup
  void* scheduler;
  zm_fiber* self;
  uint3 group, group_size;
  int line; // last one seen, for checks without a line of their own
};

static thread_local zm_worker zm_me;

#if defined(__x86_64__)
asm(".text\n.p2align 4\n"
    "zm_switch_fibers:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n"
    "  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n"
    "  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");
constexpr int zm_saved_words = 7, zm_entry_word = 6, zm_top_words = 1;
#elif defined(__aarch64__)
asm(".text\n.p2align 4\n"
    "zm_switch_fibers:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n");
constexpr int zm_saved_words = 20, zm_entry_word = 11, zm_top_words = 2;
#else
#error "the host form runs on x86-64 and on 64-bit Arm"
#endif
// Puts what the caller must keep on its stack and goes on where `to` stopped.
extern "C" void zm_switch_fibers(void** from, void* to) asm("zm_switch_fibers");

// Waits in the given state; the scheduler decides who runs next.
ZM_INLINE void zm_wait(zm_status status, int line) {
  zm_fiber* self = zm_me.self;
  self->status = status;
  self->line = line;
  zm_switch_fibers(&self->stack_pointer, zm_me.scheduler);
}

static void
zm_report(int kind, int line, long index, long limit, const char* name) {
  const zm_launch* launch = zm_me.launch;
  if (!launch->findings)
    return;
  const int at = __atomic_fetch_add(launch->num_findings, 1, __ATOMIC_RELAXED);
  if (at >= zm_max_findings)
    return;
  zm_finding& finding = launch->findings[at];
  finding = {kind, line, {}, index, limit, name};
  if (zm_me.self) {
    const uint3 at = zm_me.group *
            uint3(launch->group[0], launch->group[1], launch->group[2]) +
        zm_me.self->position;
    for (int i = 0; i < 3; ++i)
      finding.thread[i] = at[i];
  }
}

// The scheduler: lets each thread of a SIMD-group run until it waits, lets the
// SIMD-group's functions meet, and goes on until all wait at the barrier.
static void zm_run_simdgroup(zm_fiber* first, int count) {
  for (;;) {
    for (int lane = 0; lane < count; ++lane) {
      if (first[lane].status == zm_ready) {
        zm_me.self = first + lane;
        zm_switch_fibers(&zm_me.scheduler, first[lane].stack_pointer);
      }
    }
    int leader = -1;
    uint mask = 0;
    bool diverged = false;
    for (int lane = 0; lane < count; ++lane) {
      const zm_fiber& fiber = first[lane];
      if (fiber.status == zm_at_simd && leader < 0)
        leader = lane;
      if (fiber.status == zm_at_simd && fiber.meet == first[leader].meet &&
          fiber.line == first[leader].line)
        mask |= 1u << lane;
      else if (fiber.status != zm_done)
        diverged = true;
    }
    if (leader < 0)
      return;
    if (diverged) {
      zm_me.self = first + leader;
      zm_report(
          zm_divergent_simd, first[leader].line, popcount(mask), count, "");
    }
    first[leader].meet(first, count, mask);
    for (int lane = 0; lane < count; ++lane)
      if (mask >> lane & 1)
        first[lane].status = zm_ready;
  }
}

static void zm_run_fibers(int count) {
  zm_fiber* fibers = zm_me.fibers;
  for (;;) {
    int waiting = 0, lines_differ = 0;
    zm_fiber* at_barrier = nullptr;
    for (int first = 0; first < count; first += zm_width)
      zm_run_simdgroup(
          fibers + first, count - first < zm_width ? count - first : zm_width);
    for (int i = 0; i < count; ++i) {
      if (fibers[i].status == zm_at_barrier) {
        at_barrier = at_barrier ? at_barrier : fibers + i;
        lines_differ |= fibers[i].line != at_barrier->line;
        ++waiting;
      }
    }
    if (waiting == 0)
      break;
    if (waiting < count || lines_differ) {
      zm_me.self = at_barrier;
      zm_report(zm_divergent_barrier, at_barrier->line, waiting, count, "");
    }
    for (int i = 0; i < count; ++i)
      if (fibers[i].status == zm_at_barrier)
        fibers[i].status = zm_ready;
  }
  zm_me.self = nullptr;
}

extern "C" void* memset(void*, int, unsigned long);
extern "C" void* memcpy(void*, const void*, unsigned long);

// The workspace: threadgroup memory, flags for it, fibers, their stacks.
constexpr long zm_group_bytes = zm_max_arrays * zm_metal_group_bytes;
constexpr long zm_workspace =
    2 * zm_group_bytes + zm_max_threads * (zm_stack + sizeof(zm_fiber));
static_assert(zm_workspace <= 72l << 20, "as zmlx/runtime reserves it");

static void zm_open_workspace(char* workspace) {
  zm_me.memory = workspace;
  zm_me.written = workspace + zm_group_bytes;
  zm_me.fibers = (zm_fiber*)(workspace + 2 * zm_group_bytes);
  zm_me.stacks = (char*)(zm_me.fibers + zm_max_threads);
}

// Makes fiber i start at entry when it is switched to.
ZM_INLINE void zm_prepare(int i, void (*entry)()) {
  zm_fiber& fiber = zm_me.fibers[i];
  // Stacks that start at the same place of a page would share cache sets.
  char* top = zm_me.stacks + (i + 1) * zm_stack - i % 32 * 192;
  void** frame = (void**)top - zm_top_words - zm_saved_words;
  memset(frame, 0, (zm_saved_words + zm_top_words) * sizeof(void*));
  frame[zm_entry_word] = (void*)entry;
  fiber.stack_pointer = frame;
  fiber.status = zm_ready;
}

// Threadgroup memory: one array for each declaration of the kernel.
template <class T>
ZM_INLINE T& zm_threadgroup(int number) {
  static_assert(
      sizeof(T) <= zm_metal_group_bytes,
      "a threadgroup variable must fit into 32768 bytes");
  zm_group_array& array = zm_me.arrays[number];
  if (!array.data) {
    const long bytes = (sizeof(T) + 63) / 64 * 64;
    array.data = zm_me.memory + zm_me.memory_used;
    array.bytes = sizeof(T);
    zm_me.memory_used += bytes;
    if (zm_me.memory_used > long(zm_metal_group_bytes))
      zm_report(
          zm_group_memory, 0, zm_me.memory_used, zm_metal_group_bytes, "");
  }
  return *(T*)array.data;
}

ZM_INLINE uint3 zm_group_position(long number, uint3 groups) {
  return uint3(
      uint(number % groups.x),
      uint(number / groups.x % groups.y),
      uint(number / groups.x / groups.y));
}

// The attributes of a thread that Metal passes as arguments.
struct zm_ids {
  uint3 position_in_group, group, group_size, full_group, grid, groups;
  uint index;
};

template <class Run>
static void zm_for_each_group(const zm_launch* launch, Run run) {
  const uint3 grid(launch->grid[0], launch->grid[1], launch->grid[2]);
  const uint3 full(launch->group[0], launch->group[1], launch->group[2]);
  const uint3 groups = (grid + full - uint3(1)) / full;
  zm_me.launch = launch;
  zm_ids ids = {uint3(0), uint3(0), full, full, grid, groups, 0};
  for (long number = launch->begin; number < launch->end; ++number) {
    ids.group = zm_group_position(number, groups);
    ids.group_size = min(full, grid - ids.group * full);
    zm_me.group = ids.group;
    zm_me.group_size = ids.group_size;
    run(ids);
  }
}

// body(ids) for each thread, one after another.
template <class Body>
static void zm_run_loops(const zm_launch* launch, Body body) {
  zm_for_each_group(launch, [&](zm_ids ids) {
    const uint3 size = ids.group_size;
    for (uint z = 0; z < size.z; ++z)
      for (uint y = 0; y < size.y; ++y)
        for (uint x = 0; x < size.x; ++x) {
          ids.position_in_group = uint3(x, y, z);
          ids.index = x + size.x * (y + size.y * z);
          body(ids);
        }
  });
}

template <class Body>
struct zm_fiber_call {
  static thread_local const Body* body;
  static thread_local const zm_ids* ids;
  static void entry() {
    zm_fiber* self = zm_me.self;
    zm_ids mine = *ids;
    mine.position_in_group = self->position;
    mine.index = self->position.x +
        mine.group_size.x *
            (self->position.y + mine.group_size.y * self->position.z);
    (*body)(mine);
    zm_wait(zm_done, 0);
    __builtin_trap();
  }
};
template <class Body>
thread_local const Body* zm_fiber_call<Body>::body;
template <class Body>
thread_local const zm_ids* zm_fiber_call<Body>::ids;

// body(ids) for each thread, as fibers.
template <class Body>
static void zm_run_groups(const zm_launch* launch, Body body) {
  zm_open_workspace(launch->workspace);
  zm_for_each_group(launch, [&](const zm_ids& ids) {
    using Call = zm_fiber_call<Body>;
    Call::body = &body;
    Call::ids = &ids;
    const uint3 size = ids.group_size;
    const int count = size.x * size.y * size.z;
    int i = 0;
    for (uint z = 0; z < size.z; ++z)
      for (uint y = 0; y < size.y; ++y)
        for (uint x = 0; x < size.x; ++x, ++i) {
          zm_prepare(i, Call::entry);
          zm_me.fibers[i].position = uint3(x, y, z);
        }
    zm_me.count = count;
    zm_me.memory_used = 0;
    for (auto& array : zm_me.arrays)
      array = {};
    zm_run_fibers(count);
  });
}

} // namespace metal
