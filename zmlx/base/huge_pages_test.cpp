// SPDX-License-Identifier: MIT
#include "zmlx/base/huge_pages.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace zmlx {
namespace {

TEST(HugePages, KeepValuesAndAddresses) {
  std::vector<int> values(6 << 20);
  std::iota(values.begin(), values.end(), 0);
  const auto expected = values;
  const int* const place = values.data();
  const size_t bytes = values.size() * sizeof(int);
  const size_t done = move_to_huge_pages(values.data(), bytes);
  EXPECT_LE(done, bytes);
  EXPECT_EQ(done % (size_t{2} << 20), 0u);
  EXPECT_EQ(values.data(), place);
  EXPECT_EQ(values, expected);
}

TEST(HugePages, LeaveWhatIsNoWholePageAndStop) {
  std::vector<int> values(1 << 20);
  EXPECT_EQ(move_to_huge_pages(values.data(), 4096), 0u);
  EXPECT_EQ(move_to_huge_pages(values.data(), 0), 0u);
  std::stop_source source;
  source.request_stop();
  EXPECT_EQ(move_to_huge_pages(values.data(), 4 << 20, source.get_token()), 0u);
}

} // namespace
} // namespace zmlx
