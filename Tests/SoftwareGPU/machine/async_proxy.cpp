// Shared memory as asynchronous instructions touch it: tensor copies and products.
#include "block.hpp"
#include "shared_memory.hpp"

namespace SoftwareGPU {

void SharedMemory::check_fenced(const Cell& cell, std::size_t index, Site site) const {
  if (cell.write.agent.is_thread() && fences_[cell.write.agent.index()] == cell.fences)
    block.fail(Fault::illegal_instruction, site,
               "touches byte %zu of shared memory, which warp %d has written without fence.proxy.async after it",
               index * cell_bytes, cell.write.agent.place());
}

void SharedMemory::check_products(const View& view, std::size_t cell, const char* what, Site site) const {
  const ProductCell& products = product_cells_[cell * cell_bytes / product_cell_bytes];
  for (int warp = 0; warp < block.warps(); ++warp) {
    if (products.pending[warp] > 0)
      block.fail(Fault::illegal_instruction, site, "%s byte %zu of shared memory, which products of warp %d still read",
                 what, cell * cell_bytes, warp);
    if (products.time[warp] > 0 && !view.is_before({Agent::products(warp), products.time[warp]}))
      fail_race(what, "read in products", Agent::products(warp), cell, site);
  }
}

void SharedMemory::depart_with(Access access, Agent issuer, const void* at, int bytes, Site site) {
  const std::size_t first = offset_of(at, bytes, 16, "a tensor copy", site) / cell_bytes;
  const View view = block.clocks.view_of(issuer);
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i) {
    check_write(cells_[i], view, i, "copies to", site);
    check_fenced(cells_[i], i, site);
    cells_[i].write = access;
  }
}

void SharedMemory::check_product(int warp, const void* at, int bytes, Site site) {
  if (!has_products_) {
    if (product_cells_ == nullptr) product_cells_.reset(new ProductCell[most_bytes / product_cell_bytes]);
    has_products_ = true;
  }
  const std::size_t first = offset_of(at, bytes, 16, "a product's load", site) / cell_bytes;
  const View view = block.clocks.view_of(Agent::products(warp));
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i) {
    check_written(cells_[i], view, i, site);
    check_fenced(cells_[i], i, site);
  }
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes);
       i += product_cell_bytes / cell_bytes)
    ++product_cells_[i * cell_bytes / product_cell_bytes].pending[warp];
}

void SharedMemory::finish_product(int warp, const void* at, int bytes) {
  const std::size_t first = first_cell(at);
  const Access access = block.clocks.now(Agent::products(warp));
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes);
       i += product_cell_bytes / cell_bytes) {
    ProductCell& products = product_cells_[i * cell_bytes / product_cell_bytes];
    --products.pending[warp];
    products.time[warp] = access.time;
  }
}

}  // namespace SoftwareGPU
