/*
 * Attention of 128 queries of one head, over blocks of 128 keys, by wgmma: FlashAttention-3's
 * division of labour.
 *
 * Two warpgroups have 64 queries each; one thread of a third has keys and values copied, two
 * blocks of each ahead of them. A stage is full when its bytes have arrived, and free again
 * when all eight warps have done with it.
 *
 * A row depends on its query and the keys that it sees, to the bit, as it does in Attention.cuh.
 * Copies take whole tiles: behind a request's last row are those of the next, or zeros.
 */
#pragma once
#include "AttentionRows.cuh"
#include "WideTile.cuh"

template <class Element, int QK, int V>
struct AttentionTiles : AttentionRows<Element, MLA_CUDA_WIDE_TILE, MLA_CUDA_WIDE_TILE, V> {
  using Rows = AttentionRows<Element, MLA_CUDA_WIDE_TILE, MLA_CUDA_WIDE_TILE, V>;
  using Rows::tile, Rows::head, Rows::out, Rows::key_columns;
  using Queries = WideTile<Element, QK>;
  using Keys = WideTile<Element, QK>;
  using Values = WideTile<Element, V>;
  static constexpr int stages = 2;
  static constexpr int keys_per_block = Keys::rows;
  static constexpr int consumers = 256, consumer_warps = consumers / 32, consumers_barrier = 1;
  static constexpr int mbarrier_count = 1 + 4 * stages;
  static constexpr int shared_bytes = Queries::bytes + stages * (Keys::bytes + Values::bytes) + 8 * mbarrier_count;
  static_assert(Rows::finished_bytes <= stages * Keys::bytes, "outputs, finished");
  static_assert(shared_bytes <= 227 * 1024, "what a block has at most");

  const mla_cuda_attention_tiles &arguments;
  unsigned char *const shared;
  /** Keys that some query of the tile sees. */
  const int seen;

  DEVICE AttentionTiles(const mla_cuda_attention_tiles &arguments, unsigned char *shared)
      : Rows(arguments.attention),
        arguments(arguments),
        shared(shared),
        seen(tile.visible_keys(tile.count - 1)) {}

  DEVICE Queries queries() const { return {shared}; }
  DEVICE Keys keys(int stage) const { return {shared + Queries::bytes + stage * Keys::bytes}; }
  DEVICE Values values(int stage) const {
    return {shared + Queries::bytes + stages * Keys::bytes + stage * Values::bytes};
  }
  DEVICE u64 *queries_full() const { return reinterpret_cast<u64 *>(shared + shared_bytes - 8 * mbarrier_count); }
  DEVICE u64 *keys_full(int stage) const { return queries_full() + 1 + stage; }
  DEVICE u64 *keys_free(int stage) const { return keys_full(stage) + stages; }
  DEVICE u64 *values_full(int stage) const { return keys_free(stage) + stages; }
  DEVICE u64 *values_free(int stage) const { return values_full(stage) + stages; }

  DEVICE void run() {
    if (thread_id() == 0) {
      mbarrier_init(queries_full(), 1);
      for (int stage = 0; stage < stages; ++stage) {
        mbarrier_init(keys_full(stage), 1);
        mbarrier_init(values_full(stage), 1);
        mbarrier_init(keys_free(stage), consumer_warps);
        mbarrier_init(values_free(stage), consumer_warps);
      }
      mbarrier_init_fence();
    }
    block_barrier();
    if (thread_id() >= consumers) {
      registers_decrease<24>();
      if (thread_id() == consumers) produce();
    } else {
      registers_increase<240>();
      consume();
    }
  }

  DEVICE void produce() const {
    const mla_cuda_request &request = tile.request;
    if (seen > 0) queries().fetch(arguments.q, queries_full(), request.query_row + tile.first, head);
#pragma unroll 1
    for (int block = 0; block * keys_per_block < seen; ++block) {
      const int stage = block % stages, row = request.key_row + block * keys_per_block;
      // Of the turn before this one; before the first they are free.
      const int parity = block / stages % 2 ^ 1;
      mbarrier_wait(keys_free(stage), parity);
      keys(stage).fetch(arguments.k, keys_full(stage), row, head);
      mbarrier_wait(values_free(stage), parity);
      values(stage).fetch(arguments.v, values_full(stage), row, head);
    }
  }

  DEVICE void consume() {
    const int seen_by_all = tile.visible_keys(0);
    if (seen > 0) mbarrier_wait(queries_full(), 0);
#pragma unroll 1
    for (int block = 0; block * keys_per_block < seen; ++block) {
      const int stage = block % stages, parity = block / stages % 2, begin = block * keys_per_block;
      Accumulator scores[key_columns];
      mbarrier_wait(keys_full(stage), parity);
      multiply_queries_and_keys(scores, stage);
      if (lane_id() == 0) mbarrier_arrive(keys_free(stage));
      const bool is_masked = begin + keys_per_block > seen_by_all;
      const float factor = this->scaled(scores);
      if (is_masked) this->mask(scores, begin);
      Weights weights[key_columns / 2];
      this->weigh(scores, factor, weights);
      mbarrier_wait(values_full(stage), parity);
      if (is_masked) clear_values_that_are_not_finite(stage, begin);
      multiply_weights_and_values(weights, stage);
      if (lane_id() == 0) mbarrier_arrive(values_free(stage));
    }
    named_barrier(consumers_barrier, consumers);  // Nobody is at the keys, in whose place outputs go.
    this->finish(keys(0).memory);
  }

  DEVICE void multiply_queries_and_keys(Accumulator (&scores)[key_columns], int stage) const {
    const int group_row = thread_id() / 128 * 64;
    products_fence();
#pragma unroll
    for (int d = 0; d < QK; d += 16)
      product<Element::is_fp16>(scores, queries().across(group_row, d), keys(stage).across(0, d), d > 0);
    products_commit();
    products_wait<0>();
  }

  DEVICE void multiply_weights_and_values(const Weights (&weights)[key_columns / 2], int stage) {
    products_fence();
#pragma unroll
    for (int key = 0; key < keys_per_block; key += 16)
      product_of_registers<Element::is_fp16>(out, weights[key / 16], values(stage).along(key));
    products_commit();
    products_wait<0>();
  }

  /** A weight of 0 times infinity or NaN is NaN: values that are not finite become 0, those
      behind a request's last row too, once they have been added where they are seen. */
  DEVICE void clear_values_that_are_not_finite(int stage, int begin) {
    const Values block = values(stage);
    bool are_finite = true;
#pragma unroll 1
    for (int i = thread_id(); i < Values::pieces; i += consumers) {
      const Bytes16 piece = load_shared<Bytes16>(block.address(i));
      for (u32 pair : piece.words) are_finite = are_finite && Element::is_finite(pair) && Element::is_finite(pair >> 16);
    }
    if (!named_barrier_or(consumers_barrier, consumers, !are_finite)) return;
    this->add_values_that_are_not_finite(block, begin);
    named_barrier(consumers_barrier, consumers);
#pragma unroll 1
    for (int i = thread_id(); i < Values::pieces; i += consumers) {
      Bytes16 piece = load_shared<Bytes16>(block.address(i));
      for (u32 &pair : piece.words) {
        if (!Element::is_finite(pair)) pair &= 0xffff0000;
        if (!Element::is_finite(pair >> 16)) pair &= 0xffff;
      }
      store_shared(block.address(i), piece);
    }
    fence_async();
    named_barrier(consumers_barrier, consumers);
  }
};
