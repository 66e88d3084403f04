// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kernel_text.h"

#include "zmlx/base/error.h"
#include "zmlx/dialect/kernel_parts.h"
#include "zmlx/dialect/kernel_rewrite.h"
#include "zmlx/dialect/prelude.h"

namespace zmlx::dialect {
namespace {

// Names a type from outside of the prelude's namespace.
std::string qualified(const std::string& type) {
  const bool keyword = type == "float" || type == "bool" || type == "int";
  return keyword ? type : "metal::" + type;
}

// The translated halves, cut at the same lines as the author's.
struct Translation {
  std::string header, body;
};

Translation translate(
    const KernelText& text,
    const KernelParts& parts,
    KernelTarget target) {
  KernelRewriter rewriter(target, concat("kernel ", text.name));
  rewriter.learn_members(parts.header);
  rewriter.learn_members(parts.body);
  Translation result;
  result.header = rewriter.rewrite(parts.header);
  result.body = rewriter.rewrite(parts.body);
  return result;
}

std::string template_parameters(const KernelText& text) {
  std::string result;
  for (const auto& argument : text.templates) {
    result += concat(
        result.empty() ? "template <" : ", ",
        argument.kind,
        ' ',
        argument.name);
  }
  return result.empty() ? result : result + ">\n";
}

std::string template_values(const KernelText& text) {
  std::string result;
  for (const auto& argument : text.templates) {
    result += concat(
        result.empty() ? "<" : ", ",
        argument.kind == "typename" ? qualified(argument.value)
                                    : argument.value);
  }
  return result.empty() ? result : result + ">";
}

// "const float* inp" and "metal::zm_pointer<const float> inp".
std::string
pointer(std::string_view type, std::string_view name, bool checked) {
  return checked ? concat("zm_pointer<", type, "> ", name)
                 : concat(type, "* ", name);
}

// Parameters and, in the same order, the arguments that a target passes.
struct Parameters {
  std::vector<std::string> names;
  void add(std::string declaration) {
    names.push_back(std::move(declaration));
  }
  std::string text() const {
    std::string result;
    for (const auto& name : names) {
      result += concat(result.empty() ? "\n    " : ",\n    ", name);
    }
    return result;
  }
};

// The function that holds the body; one call of it is one thread.
std::string body_function(
    const KernelText& text,
    const KernelParts& parts,
    const Translation& translation,
    bool checked) {
  Parameters parameters;
  for (const auto& input : text.inputs) {
    parameters.add(
        input.scalar
            ? concat("const ", input.type, "& ", input.name)
            : pointer(concat("const ", input.type), input.name, checked));
    if (input.scalar) {
      continue;
    }
    if (mentions(parts.body, input.name + "_shape")) {
      parameters.add(pointer("const int", input.name + "_shape", checked));
    }
    if (mentions(parts.body, input.name + "_strides")) {
      parameters.add(
          pointer("const int64_t", input.name + "_strides", checked));
    }
    if (mentions(parts.body, input.name + "_ndim")) {
      parameters.add(concat("const int ", input.name, "_ndim"));
    }
  }
  for (const auto& output : text.outputs) {
    parameters.add(pointer(
        text.atomic_outputs ? concat("atomic<", output.type, ">") : output.type,
        output.name,
        checked));
  }
  for (const auto* attribute : parts.attributes) {
    parameters.add(concat("const ", attribute->type, ' ', attribute->name));
  }
  return concat(
      template_parameters(text),
      "ZM_INLINE void zm_body(",
      parameters.text(),
      ") {\n#line 1 \"body\"\n",
      translation.body,
      "\n}\n");
}

std::string header_text(const Translation& translation) {
  return concat(
      "namespace metal {\nnamespace zm_kernel {\n#line ",
      kHeaderLine + 1,
      " \"header\"\n",
      translation.header,
      "\n#line 1 \"kernel\"\n");
}

// Arguments of zm_body on the host, from zm_launch's buffers.
std::string
host_arguments(const KernelText& text, const KernelParts& parts, bool checked) {
  Parameters arguments;
  int number = 0;
  const auto data = [&](const std::string& type, const std::string& name) {
    return checked ? concat(
                         "metal::zm_buffer_pointer<",
                         type,
                         ">(zm_b[",
                         number,
                         "], \"",
                         name,
                         "\")")
                   : concat("(", type, "*)zm_b[", number, "].data");
  };
  const auto extents =
      [&](const char* type, const std::string& name, const char* member) {
        const auto field = concat("zm_b[", number, "].", member);
        return checked ? concat(
                             "metal::zm_extent_pointer<",
                             type,
                             ">(",
                             field,
                             ", zm_b[",
                             number,
                             "].ndim, \"",
                             name,
                             "\")")
                       : field;
      };
  for (const auto& input : text.inputs) {
    const std::string type = concat("const ", qualified(input.type));
    if (input.scalar) {
      arguments.add(concat("*(", type, "*)zm_b[", number++, "].data"));
      continue;
    }
    arguments.add(data(type, input.name));
    if (const auto name = input.name + "_shape"; mentions(parts.body, name)) {
      arguments.add(extents("const int", name, "shape"));
    }
    if (const auto name = input.name + "_strides"; mentions(parts.body, name)) {
      arguments.add(extents("const long", name, "strides"));
    }
    if (mentions(parts.body, input.name + "_ndim")) {
      arguments.add(concat("zm_b[", number, "].ndim"));
    }
    ++number;
  }
  for (const auto& output : text.outputs) {
    const std::string type = qualified(output.type);
    arguments.add(data(
        text.atomic_outputs ? concat("metal::atomic<", type, ">") : type,
        output.name));
    ++number;
  }
  for (const auto* attribute : parts.attributes) {
    arguments.add(attribute->host);
  }
  return arguments.text();
}

} // namespace

KernelUse kernel_use(const KernelText& text) {
  return use_of(parts_of(text));
}

std::string host_kernel_text(const KernelText& text, bool checked) {
  const KernelParts parts = parts_of(text);
  const bool meets = use_of(parts).threads_meet;
  const Translation translation = translate(
      text, parts, checked ? KernelTarget::Checked : KernelTarget::Host);
  return concat(
      checked ? "#define ZM_CHECKED 1\n" : "",
      prelude_types,
      prelude_vectors,
      prelude_math,
      prelude_ops,
      prelude_matrix,
      prelude_host,
      checked ? prelude_checked : "",
      prelude_host_sync,
      header_text(translation),
      body_function(text, parts, translation, checked),
      "}\n}\n"
      "#line 1 \"launch\"\n"
      "extern \"C\" __attribute__((visibility(\"default\"))) int zm_run("
      "const metal::zm_launch* zm_l) {\n"
      "  if (zm_l->abi != ZM_ABI) return 1;\n"
      "  const metal::zm_buffer* zm_b = zm_l->buffers;\n"
      "  const auto run = [=](const metal::zm_ids& zm) __attribute__(("
      "always_inline)) {\n"
      "    metal::zm_kernel::zm_body",
      template_values(text),
      "(",
      host_arguments(text, parts, checked),
      ");\n  };\n",
      meets || checked ? "  metal::zm_run_groups(zm_l, run);\n"
                       : "  metal::zm_run_loops(zm_l, run);\n",
      "  return 0;\n}\n");
}

CudaKernelText cuda_kernel_text(const KernelText& text, bool whole_groups) {
  const KernelParts parts = parts_of(text);
  const Translation translation = translate(text, parts, KernelTarget::Cuda);
  CudaKernelText result;
  result.header = concat(
      prelude_types,
      prelude_vectors,
      prelude_math,
      prelude_ops,
      prelude_matrix,
      prelude_cuda,
      header_text(translation),
      body_function(text, parts, translation, false),
      "}\n}\n");
  Parameters arguments;
  for (const auto& input : text.inputs) {
    const std::string value =
        concat("(const ", qualified(input.type), "*)", input.name);
    arguments.add(input.scalar ? concat("*(", value, ")") : value);
    if (input.scalar) {
      continue;
    }
    if (const auto name = input.name + "_shape"; mentions(parts.body, name)) {
      arguments.add(concat("(const int*)", name, ".data()"));
    }
    if (const auto name = input.name + "_strides"; mentions(parts.body, name)) {
      arguments.add(concat("(const metal::int64_t*)", name, ".data()"));
    }
    if (mentions(parts.body, input.name + "_ndim")) {
      arguments.add(input.name + "_ndim");
    }
  }
  for (const auto& output : text.outputs) {
    arguments.add(
        text.atomic_outputs
            ? concat(
                  "(metal::atomic<", qualified(output.type), ">*)", output.name)
            : concat("(", qualified(output.type), "*)", output.name));
  }
  for (const auto* attribute : parts.attributes) {
    arguments.add(attribute->cuda);
  }
  result.source = concat(
      whole_groups
          ? "  const metal::uint3 zm_grid(gridDim.x * blockDim.x, gridDim.y * "
            "blockDim.y, gridDim.z * blockDim.z);\n"
          : "  const metal::uint3 zm_grid(zm_size[0], zm_size[1], "
            "zm_size[2]);\n"
            "  if (!metal::all(metal::zm_thread_position_in_grid() < zm_grid)) "
            "return;\n",
      "  metal::zm_kernel::zm_body",
      template_values(text),
      "(",
      arguments.text(),
      ");\n");
  return result;
}

} // namespace zmlx::dialect
