// SPDX-License-Identifier: MIT
#include "cli/interrupt.h"

#include <csignal>

namespace zmlx::cli {
namespace {

volatile std::sig_atomic_t interrupt_wanted = 0;
struct sigaction previous_action;

void set_flag(int) {
  interrupt_wanted = 1;
}

} // namespace

Interrupt::Interrupt() {
  interrupt_wanted = 0;
  struct sigaction action{};
  action.sa_handler = set_flag;
  // The handler holds for one signal, so that the second one ends the program.
  action.sa_flags = SA_RESTART | SA_RESETHAND;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, nullptr, &previous_action);
  if (previous_action.sa_handler != SIG_IGN) {
    sigaction(SIGINT, &action, nullptr);
  }
}

Interrupt::~Interrupt() {
  sigaction(SIGINT, &previous_action, nullptr);
}

bool Interrupt::wanted() const {
  return interrupt_wanted != 0;
}

void Interrupt::check() const {
  if (wanted()) {
    throw Interrupted();
  }
}

} // namespace zmlx::cli
