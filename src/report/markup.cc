#include "report/markup.h"

#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "text/utf8.h"

namespace mantissa::report {

std::string escape(std::string_view text) {
  std::string valid, out;
  if (append_valid_utf8(valid, text) > 0) valid += kReplacement;
  for (char c : valid) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
        if (control) {
          out += kReplacement;
        } else {
          out += c;
        }
      }
    }
  }
  return out;
}

std::string coordinate(double value) {
  check(std::isfinite(value), "a coordinate is finite");
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.2f", value);
  std::string out(buffer);
  while (out.back() == '0') out.pop_back();
  if (out.back() == '.') out.pop_back();
  return out == "-0" ? "0" : out;
}

void Markup::start(std::string_view element, Attributes attributes) {
  out_ += '<';
  out_ += element;
  for (const Attribute& a : attributes) {
    out_ += ' ';
    out_ += a.name;
    out_ += "=\"" + escape(a.value) + '"';
  }
}

Markup& Markup::open(std::string_view element, Attributes attributes) {
  start(element, attributes);
  out_ += ">\n";
  open_.emplace_back(element);
  return *this;
}

Markup& Markup::close() {
  check(!open_.empty(), "Markup: an open element to close");
  out_ += "</" + open_.back() + ">\n";
  open_.pop_back();
  return *this;
}

Markup& Markup::text(std::string_view text) {
  out_ += escape(text);
  return *this;
}

Markup& Markup::leaf(std::string_view element, Attributes attributes, std::string_view text) {
  start(element, attributes);
  out_ += '>' + escape(text) + "</" + std::string(element) + ">\n";
  return *this;
}

Markup& Markup::raw(std::string_view markup) {
  out_ += markup;
  return *this;
}

std::string Markup::take() {
  check(open_.empty(), "Markup: every element closed");
  return std::move(out_);
}

}  // namespace mantissa::report
