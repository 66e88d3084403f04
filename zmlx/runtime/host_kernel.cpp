// SPDX-License-Identifier: MIT
#include "zmlx/runtime/host_kernel.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include <sys/mman.h>

#include "zmlx/base/error.h"
#include "zmlx/runtime/cpu_compiler.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {
namespace {

// As zmlx/dialect/prelude/host.h declares them.
constexpr int kAbi = 2;
constexpr size_t kWorkspaceBytes = size_t{72} << 20;
constexpr int kMaxFindings = 8;

struct Buffer {
  void* data;
  const int* shape;
  const int64_t* strides;
  int ndim;
  long bytes;
};

struct Finding {
  int kind;
  int line;
  unsigned thread[3];
  long index, limit;
  const char* name;
};

struct Launch {
  int abi;
  int num_buffers;
  const Buffer* buffers;
  unsigned grid[3];
  unsigned group[3];
  long begin, end;
  Finding* findings;
  int* num_findings;
  char* workspace;
};

// Stacks of fibers and threadgroup memory of one thread, for every kernel that
// it runs. Reserved whole; what is not touched takes no memory.
class Workspace {
 public:
  Workspace()
      : data_(mmap(
            nullptr,
            kWorkspaceBytes,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
            -1,
            0)) {}
  Workspace(const Workspace&) = delete;
  ~Workspace() {
    if (data()) {
      munmap(data_, kWorkspaceBytes);
    }
  }
  /// Null if there was no memory.
  char* data() const {
    return data_ == MAP_FAILED ? nullptr : static_cast<char*>(data_);
  }

 private:
  void* data_;
};

char* workspace_of_thread() {
  static thread_local Workspace workspace;
  return workspace.data();
}

// Vectors of four 64-bit values are the largest that a kernel may load.
constexpr size_t kAlignment = 32;
// Fewer threads than this are not worth waking the team.
constexpr int64_t kThreadsForTeam = 2048;
// What a kernel that does not see its threadgroups runs in.
constexpr int kFlatThreadgroup = 4096;

// Bytes from an array's data pointer on that are its own; -1: not known.
long extent(const mx::array& x) {
  for (const auto stride : x.strides()) {
    if (stride < 0) {
      return -1;
    }
  }
  return static_cast<long>(x.data_size() * x.itemsize());
}

// An aligned copy of an array's bytes.
struct Copy {
  explicit Copy(const mx::array& x)
      : data(
            ::operator new(
                x.data_size() * x.itemsize() + kAlignment,
                std::align_val_t(kAlignment))) {
    std::memcpy(data, x.data<char>(), x.data_size() * x.itemsize());
  }
  Copy(const Copy&) = delete;
  ~Copy() {
    ::operator delete(data, std::align_val_t(kAlignment));
  }
  void* data;
};

Buffer buffer_of(
    const mx::array& x,
    std::vector<std::unique_ptr<Copy>>* copies) {
  Buffer buffer = {
      const_cast<char*>(x.data<char>()),
      x.shape().data(),
      x.strides().data(),
      static_cast<int>(x.ndim()),
      extent(x)};
  if (copies && buffer.bytes > 0 &&
      reinterpret_cast<uintptr_t>(buffer.data) % kAlignment != 0) {
    copies->push_back(std::make_unique<Copy>(x));
    buffer.data = copies->back()->data;
  }
  return buffer;
}

std::string sentence(const std::string& name, const Finding& finding) {
  const std::string line = finding.line > dialect::kHeaderLine
      ? concat("header:", finding.line - dialect::kHeaderLine)
      : concat("body:", finding.line);
  const std::string where = concat(
      " in thread (",
      finding.thread[0],
      ", ",
      finding.thread[1],
      ", ",
      finding.thread[2],
      ") at ",
      line,
      '.');
  const std::string op = concat("[kernel ", name, "] ");
  switch (finding.kind) {
    case 1:
      return concat(
          op,
          "an index of ",
          finding.name,
          " must be 0 to ",
          finding.limit - 1,
          ", got ",
          finding.index,
          where);
    case 2:
      return concat(
          op,
          "an element of ",
          finding.name,
          " must be written before it is read, got index ",
          finding.index,
          " unwritten",
          where);
    case 3:
      return concat(
          op,
          "all ",
          finding.limit,
          " threads of a threadgroup must reach the same barrier, got ",
          finding.index,
          where);
    case 4:
      return concat(
          op,
          "all ",
          finding.limit,
          " threads of a SIMD-group must reach the same function, got ",
          finding.index,
          where);
    case 5:
      return concat(
          op,
          "threadgroup variables must fit into ",
          finding.limit,
          " bytes, got ",
          finding.index,
          '.');
    default:
      return concat(
          op,
          "an access to ",
          finding.name,
          " must be aligned to ",
          finding.limit,
          " bytes, got byte ",
          finding.index,
          where);
  }
}

} // namespace

std::string dialect_type(const std::string& op, mx::Dtype dtype) {
  switch (dtype) {
    case mx::bool_:
      return "bool";
    case mx::uint8:
      return "uint8_t";
    case mx::uint16:
      return "uint16_t";
    case mx::uint32:
      return "uint32_t";
    case mx::uint64:
      return "uint64_t";
    case mx::int8:
      return "int8_t";
    case mx::int16:
      return "int16_t";
    case mx::int32:
      return "int32_t";
    case mx::int64:
      return "int64_t";
    case mx::float16:
      return "float16_t";
    case mx::bfloat16:
      return "bfloat16_t";
    case mx::float32:
      return "float";
    case mx::complex64:
      return "complex64_t";
    default:
      invalid(op, "arrays must have a dtype that Metal has, got float64.");
  }
}

HostKernel::HostKernel(const dialect::KernelText& text, bool checked)
    : name_(text.name),
      checked_(checked),
      sees_threadgroups_(dialect::kernel_use(text).sees_threadgroups),
      entry_(
          reinterpret_cast<int (*)(const void*)>(compiled_function(
              concat("kernel ", text.name),
              dialect::host_kernel_text(text, checked),
              "zm_run"))) {}

std::vector<std::string> HostKernel::run(
    const std::vector<mx::array>& inputs,
    const std::vector<mx::array>& outputs,
    Size grid,
    Size threadgroup) const {
  std::vector<std::unique_ptr<Copy>> copies;
  std::vector<Buffer> buffers;
  for (const auto& input : inputs) {
    buffers.push_back(buffer_of(input, &copies));
  }
  for (const auto& output : outputs) {
    buffers.push_back(buffer_of(output, nullptr));
  }
  if (!sees_threadgroups_ && !checked_) {
    threadgroup = {kFlatThreadgroup, 1, 1};
  }
  Launch launch = {};
  launch.abi = kAbi;
  launch.num_buffers = static_cast<int>(buffers.size());
  launch.buffers = buffers.data();
  long groups = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const int size = std::min(threadgroup[axis], grid[axis]);
    launch.grid[axis] = static_cast<unsigned>(grid[axis]);
    launch.group[axis] = static_cast<unsigned>(size);
    groups *= (grid[axis] + size - 1) / size;
  }
  Finding findings[kMaxFindings];
  int num_findings = 0;
  if (checked_) {
    launch.findings = findings;
    launch.num_findings = &num_findings;
  }
  std::atomic<long> next = 0;
  const auto work = [&](long chunk) {
    Launch mine = launch;
    mine.workspace = workspace_of_thread();
    if (!mine.workspace) {
      return; // the other threads do it all
    }
    for (;;) {
      mine.begin = next.fetch_add(chunk);
      mine.end = std::min(mine.begin + chunk, groups);
      if (mine.begin >= groups || entry_(&mine) != 0) {
        return;
      }
    }
  };
  const int64_t threads = int64_t{grid[0]} * grid[1] * grid[2];
  if (groups == 1 || threads < kThreadsForTeam || checked_) {
    work(groups);
  } else {
    const auto team = thread_team();
    const long chunk = std::max(1L, groups / (team->size() * 8L));
    team->run([&](int) { work(chunk); });
  }
  if (next < groups) {
    throw BackendError(concat(
        "[kernel ",
        name_,
        "] ",
        kWorkspaceBytes >> 20,
        " MiB for the stacks of its threads must be available, got none."));
  }
  std::vector<std::string> sentences;
  for (int i = 0; i < std::min(num_findings, kMaxFindings); ++i) {
    sentences.push_back(sentence(name_, findings[i]));
  }
  return sentences;
}

} // namespace zmlx
