// Memory at cache-line boundaries, kept between uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace ragrig {

constexpr size_t kAlign = 64;

// Grows only; contents are lost when it does.
template <typename T>
class Aligned {
 public:
  T* reserve(int64_t count) {
    if (count > size_) {
      const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + kAlign - 1) / kAlign * kAlign;
      data_.reset(static_cast<T*>(std::aligned_alloc(kAlign, bytes)));
      if (!data_) throw std::bad_alloc();
      size_ = count;
    }
    return data_.get();
  }
  T* get() { return data_.get(); }
  const T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* gone) const { std::free(gone); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

}  // namespace ragrig
