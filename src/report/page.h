// A report as one HTML file that needs nothing else: no scripts, no fonts or pictures from
// elsewhere; follows the reader's light or dark mode and prints on white.
#pragma once

#include <string>
#include <vector>

namespace mantissa::report {

struct Fact {
  std::string name, value;
};
struct PageTable {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header
  std::vector<std::string> failures;  // of each row: why it has no values; empty where it has
  std::string caption;
};
struct Figure {
  std::string title, caption;
  std::string svg;  // made by this layer
};
struct Page {
  std::string title, lead;
  std::vector<Fact> facts;
  std::string command;  // that made it
  PageTable table;
  std::vector<Figure> figures;
  std::string second_title;
  PageTable second;         // behind the figures
  std::vector<Fact> terms;  // what the columns mean
};

std::string page_html(const Page& page);

}  // namespace mantissa::report
