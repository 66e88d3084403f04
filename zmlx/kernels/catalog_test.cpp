// SPDX-License-Identifier: MIT
// The shared driver over every kernel of the catalog, case by case, on every
// device that is present.
#include "zmlx/kernels/catalog.h"

#include <cctype>

#include <gtest/gtest.h>

#include "zmlx/authoring/verify.h"

namespace zmlx {
namespace {

struct Place {
  const KernelSpec* spec;
  const KernelCase* one;
  mx::Device device;
};

std::vector<Place> places() {
  std::vector<Place> places;
  for (const auto& spec : catalog().kernels()) {
    for (const auto& device : devices_of(spec)) {
      for (const auto& one : spec.cases) {
        places.push_back({&spec, &one, device});
      }
    }
  }
  return places;
}

void PrintTo(const Place& place, std::ostream* out) {
  *out << place.spec->name << ' ' << to_text(*place.one);
}

// GoogleTest takes letters, digits and underscores only.
std::string name_of(const ::testing::TestParamInfo<Place>& info) {
  std::string name = info.param.spec->name +
      (info.param.device == mx::Device::cpu ? "_cpu_" : "_gpu_") +
      to_text(*info.param.one);
  for (char& letter : name) {
    letter = std::isalnum(static_cast<unsigned char>(letter)) ? letter : '_';
  }
  return name + '_' + std::to_string(info.index);
}

class Catalog : public ::testing::TestWithParam<Place> {};

TEST_P(Catalog, HoldsWhatItsSpecSays) {
  const auto& [spec, one, device] = GetParam();
  const auto checks = verify(*spec, *one, device);
  EXPECT_GE(checks.size(), 5u);
  for (const auto& check : checks) {
    EXPECT_TRUE(check.passed) << check.name << ": " << check.detail;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kernels,
    Catalog,
    ::testing::ValuesIn(places()),
    name_of);

} // namespace
} // namespace zmlx
