// SPDX-License-Identifier: MIT
#include "zmlx/authoring/kernel_run.h"

#include <cstring>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/runtime/kept_compiled.h"

namespace zmlx {
namespace {

// Two patterns that no element can hold at once: what still shows both after
// two runs was not written.
constexpr unsigned char kPatterns[] = {0xa5, 0x5a};
// Blocks along y and z that CUDA takes.
constexpr int kMaxGroups = 65535;

dialect::KernelTemplate template_of(
    const std::string& op,
    const KernelTemplateArgument& argument) {
  const auto& [name, value] = argument;
  if (const auto* number = std::get_if<int>(&value)) {
    return {name, "int", std::to_string(*number)};
  }
  if (const auto* flag = std::get_if<bool>(&value)) {
    return {name, "bool", *flag ? "true" : "false"};
  }
  return {name, "typename", dialect_type(op, std::get<mx::Dtype>(value))};
}

void fill(mx::array& output, const std::optional<mx::array>& value) {
  if (!value) {
    return;
  }
  const size_t size = output.itemsize();
  char* out = output.data<char>();
  for (size_t i = 0; i < output.size(); ++i) {
    std::memcpy(out + i * size, value->data<char>(), size);
  }
}

// init_value as one element of a dtype.
std::optional<mx::array> element_of(
    const std::optional<float>& value,
    mx::Dtype dtype) {
  if (!value) {
    return std::nullopt;
  }
  auto element = mx::array(*value, dtype);
  element.eval();
  return element;
}

HostKernel::Size size_of(KernelSize size) {
  return {size.x, size.y, size.z};
}

mx::array allocated(const mx::Shape& shape, mx::Dtype dtype) {
  size_t bytes = mx::size_of(dtype);
  for (const auto length : shape) {
    bytes *= static_cast<size_t>(length);
  }
  return mx::array(mx::allocator::malloc(bytes), shape, dtype);
}

// CUDA's limit, and so the limit of what runs everywhere.
void check_groups(const std::string& op, const KernelCall& call) {
  for (const auto& [size, unit] :
       {std::pair(call.grid.y, call.threadgroup.y),
        std::pair(call.grid.z, call.threadgroup.z)}) {
    const int groups = static_cast<int>((int64_t{size} + unit - 1) / unit);
    if (groups > kMaxGroups) {
      invalid(
          op,
          "grid must have at most ",
          kMaxGroups,
          " threadgroups along y and z, got ",
          groups,
          '.');
    }
  }
}

std::tuple<int, int, int> tuple_of(KernelSize size) {
  return {size.x, size.y, size.z};
}

// The first element that holds both patterns, or -1.
int64_t first_unwritten(const mx::array& a, const mx::array& b) {
  const size_t size = a.itemsize();
  const auto* first = a.data<unsigned char>();
  const auto* second = b.data<unsigned char>();
  for (size_t i = 0; i < a.size(); ++i) {
    bool untouched = true;
    for (size_t k = i * size; k < (i + 1) * size; ++k) {
      untouched &= first[k] == kPatterns[0] && second[k] == kPatterns[1];
    }
    if (untouched) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

bool on_cuda() {
  static const bool available = mx::cu::is_available();
  return available;
}

} // namespace

KernelRunner::KernelRunner(KernelSource source)
    : source_(std::move(source)), op_(concat("kernel ", source_.name)) {
  dialect::KernelText text;
  text.name = source_.name;
  text.header = source_.header;
  text.body = source_.body;
  dialect::kernel_use(text); // throws for text that is none
}

dialect::KernelText KernelRunner::text_of(
    const Arrays& inputs,
    const KernelCall& call) const {
  dialect::KernelText text;
  text.name = source_.name;
  text.header = source_.header;
  text.body = source_.body;
  text.atomic_outputs = source_.atomic_outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    text.inputs.push_back(
        {source_.inputs[i],
         dialect_type(op_, inputs[i].dtype()),
         inputs[i].ndim() == 0});
  }
  for (size_t i = 0; i < call.output_dtypes.size(); ++i) {
    text.outputs.push_back(
        {source_.outputs[i], dialect_type(op_, call.output_dtypes[i]), false});
  }
  for (const auto& argument : call.templates) {
    text.templates.push_back(template_of(op_, argument));
  }
  return text;
}

std::string KernelRunner::key_of(const Arrays& inputs, const KernelCall& call)
    const {
  std::string key;
  for (const auto& input : inputs) {
    key += dialect_type(op_, input.dtype());
    key += input.ndim() == 0 ? "&," : ",";
  }
  for (const auto dtype : call.output_dtypes) {
    key += dialect_type(op_, dtype);
    key += ',';
  }
  for (const auto& argument : call.templates) {
    key += argument.first + '=' + template_of(op_, argument).value + ',';
  }
  return key;
}

std::shared_ptr<const HostKernel> KernelRunner::host_kernel(
    const Arrays& inputs,
    const KernelCall& call,
    bool checked) {
  const std::string key = key_of(inputs, call) + (checked ? "checked" : "");
  std::lock_guard lock(mutex_);
  auto& kernel = host_[key];
  if (!kernel) {
    kernel = std::make_shared<const HostKernel>(text_of(inputs, call), checked);
  }
  return kernel;
}

std::vector<mx::array>
KernelRunner::run(const Arrays& inputs, const KernelCall& call, bool checked) {
  if (call.empty) {
    Arrays outputs;
    for (size_t i = 0; i < call.output_shapes.size(); ++i) {
      outputs.push_back(
          mx::zeros(call.output_shapes[i], call.output_dtypes[i]));
    }
    return outputs;
  }
  if (checked) {
    return run_checked(inputs, call);
  }
  if (mx::default_device() == mx::Device::cpu) {
    return run_cpu(inputs, call);
  }
  return on_cuda() ? run_cuda(inputs, call) : run_metal(inputs, call);
}

std::vector<mx::array> KernelRunner::on_cpu(
    Arrays inputs,
    const KernelCall& call,
    CpuTask task) const {
  std::vector<CpuOutput> outputs;
  for (size_t i = 0; i < call.output_shapes.size(); ++i) {
    outputs.push_back({call.output_shapes[i], call.output_dtypes[i]});
  }
  const auto name = std::make_shared<const std::string>(source_.name);
  return cpu_op(
      name->c_str(), // as long as the task
      std::move(inputs),
      outputs,
      [name, task = std::move(task)](const Arrays& in, Arrays& out) {
        task(in, out);
      });
}

std::vector<mx::array> KernelRunner::run_cpu(
    const Arrays& inputs,
    const KernelCall& call) {
  const auto kernel = host_kernel(inputs, call, false);
  Arrays ready;
  for (const auto& input : inputs) {
    ready.push_back(
        source_.ensure_row_contiguous ? mx::contiguous(input) : input);
  }
  std::vector<std::optional<mx::array>> init;
  for (const auto dtype : call.output_dtypes) {
    init.push_back(element_of(call.init_value, dtype));
  }
  return on_cpu(
      std::move(ready),
      call,
      [kernel, init, grid = call.grid, threadgroup = call.threadgroup](
          const Arrays& in, Arrays& out) {
        for (size_t i = 0; i < out.size(); ++i) {
          fill(out[i], init[i]);
        }
        kernel->run(in, out, size_of(grid), size_of(threadgroup));
      });
}

std::vector<mx::array> KernelRunner::run_metal(
    const Arrays& inputs,
    const KernelCall& call) {
  std::lock_guard lock(mutex_);
  auto& function = gpu_[""]; // MLX keeps apart what differs
  if (!function) {
    function = mx::fast::metal_kernel(
        source_.name,
        source_.inputs,
        source_.outputs,
        source_.body,
        source_.header,
        source_.ensure_row_contiguous,
        source_.atomic_outputs);
  }
  text_of(inputs, call); // dtypes that Metal does not have
  return function(
      inputs,
      call.output_shapes,
      call.output_dtypes,
      tuple_of(call.grid),
      tuple_of(call.threadgroup),
      call.templates,
      call.init_value,
      false,
      {});
}

std::vector<mx::array> KernelRunner::run_cuda(
    const Arrays& inputs,
    const KernelCall& call) {
  check_groups(op_, call);
  const KernelSize grid = call.grid, group = call.threadgroup;
  const auto whole = [](int size, int unit) {
    return size % std::min(size, unit) == 0;
  };
  const bool whole_groups = whole(grid.x, group.x) && whole(grid.y, group.y) &&
      whole(grid.z, group.z);
  mx::fast::CustomKernelFunction function;
  {
    std::lock_guard lock(mutex_);
    auto& known = gpu_[key_of(inputs, call) + (whole_groups ? "whole" : "")];
    if (!known) {
      const auto translated =
          dialect::cuda_kernel_text(text_of(inputs, call), whole_groups);
      auto names = source_.inputs;
      if (!whole_groups) {
        names.push_back("zm_size");
      }
      known = kept_compiled(
          mx::fast::cuda_kernel(
              source_.name,
              names,
              source_.outputs,
              translated.source,
              translated.header,
              source_.ensure_row_contiguous,
              0));
    }
    function = known;
  }
  Arrays arguments = inputs;
  if (!whole_groups) {
    arguments.push_back(mx::array({grid.x, grid.y, grid.z}, mx::int32));
  }
  return function(
      arguments,
      call.output_shapes,
      call.output_dtypes,
      tuple_of(grid),
      tuple_of(group),
      {},
      call.init_value,
      false,
      {});
}

std::vector<mx::array> KernelRunner::evaluated(const Arrays& inputs) const {
  Arrays ready;
  bool traced = false;
  for (const auto& input : inputs) {
    traced |= input.is_tracer();
    ready.push_back(
        source_.ensure_row_contiguous
            ? mx::contiguous(input, false, mx::Device::cpu)
            : input);
  }
  try {
    mx::eval(ready);
  } catch (const std::exception&) {
    if (!traced) {
      throw;
    }
    throw BackendError(concat(
        '[',
        op_,
        "] checked mode runs a kernel at once, which is not possible inside "
        "mx::compile or mx::vmap. Try: set_checked_kernels(false)."));
  }
  return ready;
}

std::vector<mx::array> KernelRunner::run_checked(
    const Arrays& inputs,
    const KernelCall& call) {
  check_groups(op_, call);
  const auto kernel = host_kernel(inputs, call, true);
  const Arrays ready = evaluated(inputs);
  Arrays runs[2];
  std::vector<std::string> found;
  for (int run = 0; run < 2 && found.empty(); ++run) {
    for (size_t i = 0; i < call.output_shapes.size(); ++i) {
      auto out = allocated(call.output_shapes[i], call.output_dtypes[i]);
      if (out.size() > 0) {
        std::memset(out.data<char>(), kPatterns[run], out.nbytes());
      }
      fill(out, element_of(call.init_value, call.output_dtypes[i]));
      runs[run].push_back(out);
    }
    found = kernel->run(
        ready, runs[run], size_of(call.grid), size_of(call.threadgroup));
  }
  for (size_t i = 0; i < source_.outputs.size() && found.empty(); ++i) {
    const auto unwritten = first_unwritten(runs[0][i], runs[1][i]);
    if (unwritten >= 0) {
      found.push_back(concat(
          '[',
          op_,
          "] every element of ",
          source_.outputs[i],
          " must be written, got element ",
          unwritten,
          " unwritten."));
    }
  }
  if (!found.empty()) {
    throw KernelCheckError(join(found, "\n"));
  }
  // As an operation on the inputs, so that gradients pass through it.
  return on_cpu(inputs, call, [outputs = runs[0]](const Arrays&, Arrays& out) {
    for (size_t i = 0; i < out.size(); ++i) {
      if (out[i].nbytes() > 0) {
        std::memcpy(
            out[i].data<char>(), outputs[i].data<char>(), out[i].nbytes());
      }
    }
  });
}

} // namespace zmlx
