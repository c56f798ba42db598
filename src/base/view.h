// Views: matrices travel as pointer, rows, cols, stride, all in elements and 64-bit. Non-owning,
// row-major. Matrix<T> knows its type at compile time, View (base/elem.h types) at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/elem.h"
#include "base/error.h"

namespace mantissa {

template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // elements from one row to the next, >= cols

  Matrix() = default;
  Matrix(T* data, int64_t rows, int64_t cols) : Matrix(data, rows, cols, cols) {}
  Matrix(T* data, int64_t rows, int64_t cols, int64_t stride)
      : data(data), rows(rows), cols(cols), stride(stride) {}
  // A matrix of T reads as a matrix of const T.
  template <class U>  // NOLINTNEXTLINE(google-explicit-constructor): adding const is no surprise
  requires(std::is_same_v<T, const U>) Matrix(const Matrix<U>& m)
      : Matrix(m.data, m.rows, m.cols, m.stride) {}

  std::span<T> row(int64_t r) const {
    check(0 <= r && r < rows, "Matrix::row in range");
    return {data + r * stride, static_cast<size_t>(cols)};
  }
  Matrix row_range(int64_t first, int64_t count) const {
    check(0 <= first && 0 <= count && first + count <= rows, "Matrix::row_range in range");
    return {data + first * stride, count, cols, stride};
  }
};

// A matrix whose element type (f32, f16 or bf16: a run dtype) is known at run time.
template <class Byte>
struct BasicView {
  Byte* data = nullptr;
  const Elem* elem = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // elements

  BasicView() = default;
  BasicView(Byte* data, const Elem& elem, int64_t rows, int64_t cols, int64_t stride)
      : data(data), elem(&elem), rows(rows), cols(cols), stride(stride) {}
  BasicView(Byte* data, const Elem& elem, int64_t rows, int64_t cols)
      : BasicView(data, elem, rows, cols, cols) {}
  template <class Other>
  requires(std::is_same_v<Byte, const Other>)
      BasicView(const BasicView<Other>& v)  // NOLINT(google-explicit-constructor)
      : data(v.data), elem(v.elem), rows(v.rows), cols(v.cols), stride(v.stride) {}

  bool empty() const { return data == nullptr; }
  int64_t elem_bytes() const { return elem->bits() / 8; }
  Byte* row(int64_t r) const { return data + r * stride * elem_bytes(); }
  BasicView row_range(int64_t first, int64_t count) const {
    check(0 <= first && 0 <= count && first + count <= rows, "View::row_range in range");
    return {row(first), *elem, count, cols, stride};
  }
  BasicView col_range(int64_t first, int64_t count) const {
    check(0 <= first && 0 <= count && first + count <= cols, "View::col_range in range");
    return {data + first * elem_bytes(), *elem, rows, count, stride};
  }
  // T must be the storage type of elem: float for f32, uint16_t for f16 and bf16.
  template <class T>
  auto as() const {
    using U = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    check(sizeof(T) * 8 == static_cast<size_t>(elem->bits()), "View::as of the right width");
    return Matrix<U>(reinterpret_cast<U*>(data), rows, cols, stride);
  }
};
using View = BasicView<std::byte>;
using ConstView = BasicView<const std::byte>;

// Shapes are checked by naming dimensions: the first use binds, later uses must agree.
struct Dim {
  std::string_view name;
  int64_t value = -1;  // -1: not yet bound; 0 is a legal size
};
inline void expect_dim(std::string_view what, int64_t size, Dim& dim) {
  if (dim.value < 0) dim.value = size;
  if (dim.value != size) {
    throw Error(text(what, ": ", dim.name, " is ", size, ", but it was ", dim.value, " before"),
                text("check the shape of ", what));
  }
}
// Matrix, View or anything else with rows and cols.
template <class M>
void expect_shape(std::string_view what, const M& m, Dim& rows, Dim& cols) {
  expect_dim(what, m.rows, rows);
  expect_dim(what, m.cols, cols);
}

}  // namespace mantissa
