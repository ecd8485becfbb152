// Blocks of memory that travel from rank to rank while their receiver works.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

/// Brings what each rank has to all of them: a rank hands on to the next what it got last, in
/// rounds: the blocks of the first are everywhere before others are sent. A thread of its own
/// waits for blocks; until it is joined no other may call MPI (MPI_THREAD_SERIALIZED). Where a
/// rank dies MPI ends the whole job.
class Ring {
 public:
  struct Block {
    float* data;
    std::size_t size;
  };

  /// `rounds`: of each round each rank's block, the own one filled.
  Ring(std::vector<std::vector<Block>> rounds, MPI_Comm comm)
      : rounds_(std::move(rounds)), comm_(comm) {
    MPI_Comm_rank(comm, &rank_);
    MPI_Comm_size(comm, &ranks_);
    thread_ = std::thread([this] { run(); });
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  /// What this rank has to hand on others wait for.
  ~Ring() { thread_.join(); }

  /// Until that rank's block of that round is there.
  void wait(int round, int rank) {
    // Blocks come in this order: the own one, the one of the rank before, and so on.
    const int needed = round * ranks_ + (rank_ - rank + ranks_) % ranks_ + 1;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= needed; });
  }

 private:
  void run() {
    for (const auto& blocks : rounds_) {
      arrive();
      for (int step = 0; step + 1 < ranks_; ++step) {
        const Block& sent = blocks[static_cast<std::size_t>((rank_ - step + ranks_) % ranks_)];
        const Block& received =
            blocks[static_cast<std::size_t>((rank_ - step - 1 + ranks_) % ranks_)];
        MPI_Request requests[2];
        MPI_Isend(sent.data, static_cast<int>(sent.size), MPI_FLOAT, (rank_ + 1) % ranks_, step,
                  comm_, &requests[0]);
        MPI_Irecv(received.data, static_cast<int>(received.size), MPI_FLOAT,
                  (rank_ - 1 + ranks_) % ranks_, step, comm_, &requests[1]);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        arrive();
      }
    }
  }

  void arrive() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++arrived_;
    changed_.notify_all();
  }

  std::vector<std::vector<Block>> rounds_;
  /// Blocks that are there, of all rounds.
  int arrived_ = 0;
  MPI_Comm comm_;
  int rank_ = 0, ranks_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
};
