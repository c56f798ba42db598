// Written by tools/make_unicode_sets.py; data only. Meaning: unicode_sets.h.
// tokenizers 0.23.3; PCRE2 10.42 2022-12-11, Unicode 14.0.0; utf8proc 2.8.0.
#include "text/unicode_sets.h"

namespace mantissa {

// clang-format off
namespace {
constexpr CharSet kSets[] = {
    {"L Letter", "A-Za-z\\p{L}",
     "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}"
     "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}"
     "\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}"
     "\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}"
     "\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}"
     "\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"
     "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}"
     "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}"
     "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}",
     ""},
    {"Lu Uppercase_Letter", "\\p{Lu}",
     "\\x{1c89}\\x{a7cb}-\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}",
     ""},
    {"Ll Lowercase_Letter", "\\p{Ll}",
     "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}",
     ""},
    {"Lt Titlecase_Letter", "\\p{Lt}",
     "",
     ""},
    {"Lm Modifier_Letter", "\\p{Lm}",
     "\\x{10d4e}\\x{10d6f}\\x{16d40}-\\x{16d42}\\x{16d6b}-\\x{16d6c}"
     "\\x{1e030}-\\x{1e06d}\\x{1e4eb}",
     ""},
    {"Lo Other_Letter", "\\p{Lo}",
     "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4d}\\x{10d4f}\\x{10ec2}-\\x{10ec4}"
     "\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"
     "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}"
     "\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"
     "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"
     "\\x{16d43}-\\x{16d6a}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1e4d0}-\\x{1e4ea}"
     "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}"
     "\\x{31350}-\\x{323af}",
     ""},
    {"M Mark", "\\p{M}",
     "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}"
     "\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}"
     "\\x{113cc}-\\x{113d0}\\x{113d2}\\x{113e1}-\\x{113e2}\\x{11f00}-\\x{11f01}"
     "\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{13440}"
     "\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}"
     "\\x{1e5ee}-\\x{1e5ef}",
     ""},
    {"Mn Nonspacing_Mark", "\\p{Mn}",
     "\\x{897}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}"
     "\\x{113bb}-\\x{113c0}\\x{113ce}\\x{113d0}\\x{113d2}\\x{113e1}-\\x{113e2}"
     "\\x{11f00}-\\x{11f01}\\x{11f36}-\\x{11f3a}\\x{11f40}\\x{11f42}\\x{11f5a}"
     "\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{16129}\\x{1612d}-\\x{1612f}"
     "\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}-\\x{1e5ef}",
     "\\x{1171e}"},
    {"Mc Spacing_Mark", "\\p{Mc}",
     "\\x{cf3}\\x{113b8}-\\x{113ba}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}"
     "\\x{113cc}-\\x{113cd}\\x{113cf}\\x{1171e}\\x{11f03}\\x{11f34}-\\x{11f35}"
     "\\x{11f3e}-\\x{11f3f}\\x{11f41}\\x{1612a}-\\x{1612c}",
     ""},
    {"Me Enclosing_Mark", "\\p{Me}",
     "",
     ""},
    {"N Number", "0-9\\p{N}",
     "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"
     "\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}"
     "\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"
     "\\x{1e5f1}-\\x{1e5fa}",
     ""},
    {"Nd Decimal_Number", "\\p{Nd}",
     "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"
     "\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}"
     "\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}",
     ""},
    {"Nl Letter_Number", "\\p{Nl}",
     "",
     ""},
    {"No Other_Number", "\\p{No}",
     "\\x{1d2c0}-\\x{1d2d3}",
     ""},
    {"P Punctuation", "\\p{P}",
     "\\x{1b4e}-\\x{1b4f}\\x{1b7f}\\x{10d6e}\\x{113d4}-\\x{113d5}"
     "\\x{113d7}-\\x{113d8}\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11f43}-\\x{11f4f}"
     "\\x{16d6d}-\\x{16d6f}\\x{1e5ff}",
     ""},
    {"Pc Connector_Punctuation", "\\p{Pc}",
     "",
     ""},
    {"Pd Dash_Punctuation", "\\p{Pd}",
     "\\x{10d6e}",
     ""},
    {"Ps Open_Punctuation", "\\p{Ps}",
     "",
     ""},
    {"Pe Close_Punctuation", "\\p{Pe}",
     "",
     ""},
    {"Pi Initial_Punctuation", "\\p{Pi}",
     "",
     ""},
    {"Pf Final_Punctuation", "\\p{Pf}",
     "",
     ""},
    {"Po Other_Punctuation", "\\p{Po}",
     "\\x{1b4e}-\\x{1b4f}\\x{1b7f}\\x{113d4}-\\x{113d5}\\x{113d7}-\\x{113d8}"
     "\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}"
     "\\x{1e5ff}",
     ""},
    {"S Symbol", "\\p{S}",
     "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}"
     "\\x{10d8e}-\\x{10d8f}\\x{1cc00}-\\x{1ccef}\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}"
     "\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}"
     "\\x{1f8c0}-\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}"
     "\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}-\\x{1facf}"
     "\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}"
     "\\x{1fbcb}-\\x{1fbef}",
     ""},
    {"Sm Math_Symbol", "\\p{Sm}",
     "\\x{10d8e}-\\x{10d8f}",
     ""},
    {"Sc Currency_Symbol", "\\p{Sc}",
     "",
     ""},
    {"Sk Modifier_Symbol", "\\p{Sk}",
     "",
     ""},
    {"So Other_Symbol", "\\p{So}",
     "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}"
     "\\x{1cc00}-\\x{1ccef}\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}\\x{1f774}-\\x{1f776}"
     "\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}\\x{1f8c0}-\\x{1f8c1}"
     "\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}"
     "\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}-\\x{1facf}\\x{1fada}-\\x{1fadc}"
     "\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}\\x{1fbcb}-\\x{1fbef}",
     ""},
    {"Z Separator", "\\p{Z}",
     "",
     ""},
    {"Zs Space_Separator", "\\p{Zs}",
     "",
     ""},
    {"Zl Line_Separator", "\\p{Zl}",
     "",
     ""},
    {"Zp Paragraph_Separator", "\\p{Zp}",
     "",
     ""},
    {"Cc Control", "\\p{Cc}",
     "",
     ""},
    {"Cf Format", "\\p{Cf}",
     "\\x{13439}-\\x{1343f}",
     ""},
    {"Arabic", "\\p{sc:Arabic}",
     "\\x{897}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}",
     ""},
    {"Armenian", "\\p{sc:Armenian}",
     "",
     ""},
    {"Bengali", "\\p{sc:Bengali}",
     "",
     ""},
    {"Bopomofo", "\\p{sc:Bopomofo}",
     "",
     ""},
    {"Common", "\\p{sc:Common}",
     "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}"
     "\\x{1cc00}-\\x{1ccf9}\\x{1cd00}-\\x{1ceb3}\\x{1d2c0}-\\x{1d2d3}\\x{1f6dc}"
     "\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}"
     "\\x{1f8c0}-\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}"
     "\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}-\\x{1facf}"
     "\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}"
     "\\x{1fbcb}-\\x{1fbef}",
     ""},
    {"Cyrillic", "\\p{sc:Cyrillic}",
     "\\x{1c89}-\\x{1c8a}\\x{1e030}-\\x{1e06d}\\x{1e08f}",
     ""},
    {"Devanagari", "\\p{sc:Devanagari}",
     "\\x{11b00}-\\x{11b09}",
     ""},
    {"Ethiopic", "\\p{sc:Ethiopic}",
     "",
     ""},
    {"Georgian", "\\p{sc:Georgian}",
     "",
     ""},
    {"Greek", "\\p{sc:Greek}",
     "",
     ""},
    {"Gujarati", "\\p{sc:Gujarati}",
     "",
     ""},
    {"Gurmukhi", "\\p{sc:Gurmukhi}",
     "",
     ""},
    {"Han", "\\p{sc:Han}",
     "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}",
     ""},
    {"Hangul", "\\p{sc:Hangul}",
     "",
     ""},
    {"Hebrew", "\\p{sc:Hebrew}",
     "",
     ""},
    {"Hiragana", "\\p{sc:Hiragana}",
     "\\x{1b132}",
     ""},
    {"Inherited", "\\p{sc:Inherited}",
     "",
     ""},
    {"Kannada", "\\p{sc:Kannada}",
     "\\x{cf3}",
     ""},
    {"Katakana", "\\p{sc:Katakana}",
     "\\x{1b155}",
     ""},
    {"Khmer", "\\p{sc:Khmer}",
     "",
     ""},
    {"Lao", "\\p{sc:Lao}",
     "\\x{ece}",
     ""},
    {"Latin", "\\p{sc:Latin}",
     "\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{1df25}-\\x{1df2a}",
     ""},
    {"Malayalam", "\\p{sc:Malayalam}",
     "",
     ""},
    {"Mongolian", "\\p{sc:Mongolian}",
     "",
     ""},
    {"Myanmar", "\\p{sc:Myanmar}",
     "\\x{116d0}-\\x{116e3}",
     ""},
    {"Oriya", "\\p{sc:Oriya}",
     "",
     ""},
    {"Sinhala", "\\p{sc:Sinhala}",
     "",
     ""},
    {"Tamil", "\\p{sc:Tamil}",
     "",
     ""},
    {"Telugu", "\\p{sc:Telugu}",
     "",
     ""},
    {"Thai", "\\p{sc:Thai}",
     "",
     ""},
    {"Tibetan", "\\p{sc:Tibetan}",
     "",
     ""},
    {"Yi", "\\p{sc:Yi}",
     "",
     ""},
    {"Alphabetic Alpha", "A-Za-z\\p{Alphabetic}",
     "\\x{363}-\\x{36f}\\x{897}\\x{c04}\\x{cf3}\\x{f82}-\\x{f83}\\x{1c89}-\\x{1c8a}"
     "\\x{1dd3}-\\x{1de6}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}"
     "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}\\x{10d69}\\x{10d6f}-\\x{10d85}"
     "\\x{10ec2}-\\x{10ec4}\\x{10efc}\\x{11080}-\\x{11081}\\x{1123f}-\\x{11241}"
     "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}"
     "\\x{113b7}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}"
     "\\x{113cc}-\\x{113cd}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}"
     "\\x{11f00}-\\x{11f10}\\x{11f12}-\\x{11f3a}\\x{11f3e}-\\x{11f40}\\x{1342f}"
     "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1612e}"
     "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}"
     "\\x{1e030}-\\x{1e06d}\\x{1e08f}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}"
     "\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}",
     ""},
    {"Uppercase Upper", "\\p{Uppercase}",
     "\\x{1c89}\\x{a7cb}-\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}",
     ""},
    {"Lowercase Lower", "\\p{Lowercase}",
     "\\x{10fc}\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{a7f2}-\\x{a7f4}\\x{ab69}"
     "\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}",
     ""},
    {"White_Space Space", "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"
     "\\x{202f}\\x{205f}\\x{3000}",
     "",
     ""},
    {"#not_space", "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}"
     "\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}"
     "\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}",
     "",
     ""},
    {"Digit", "\\p{Nd}",
     "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"
     "\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}"
     "\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}",
     ""},
    {"Alnum", "A-Za-z0-9\\p{Alphabetic}\\p{Nd}",
     "\\x{363}-\\x{36f}\\x{897}\\x{c04}\\x{cf3}\\x{f82}-\\x{f83}\\x{1c89}-\\x{1c8a}"
     "\\x{1dd3}-\\x{1de6}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}"
     "\\x{105c0}-\\x{105f3}\\x{10d40}-\\x{10d65}\\x{10d69}\\x{10d6f}-\\x{10d85}"
     "\\x{10ec2}-\\x{10ec4}\\x{10efc}\\x{11080}-\\x{11081}\\x{1123f}-\\x{11241}"
     "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}"
     "\\x{113b7}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}"
     "\\x{113cc}-\\x{113cd}\\x{113d1}\\x{113d3}\\x{116d0}-\\x{116e3}"
     "\\x{11bc0}-\\x{11be0}\\x{11bf0}-\\x{11bf9}\\x{11f00}-\\x{11f10}"
     "\\x{11f12}-\\x{11f3a}\\x{11f3e}-\\x{11f40}\\x{11f50}-\\x{11f59}\\x{1342f}"
     "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1612e}"
     "\\x{16130}-\\x{16139}\\x{16d40}-\\x{16d6c}\\x{16d70}-\\x{16d79}\\x{18cff}"
     "\\x{1b132}\\x{1b155}\\x{1ccf0}-\\x{1ccf9}\\x{1df25}-\\x{1df2a}"
     "\\x{1e030}-\\x{1e06d}\\x{1e08f}\\x{1e4d0}-\\x{1e4eb}\\x{1e4f0}-\\x{1e4f9}"
     "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}-\\x{1e5fa}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}"
     "\\x{31350}-\\x{323af}",
     ""},
    {"Word", "A-Za-z0-9_\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}",
     "\\x{b2}-\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{897}\\x{cf3}\\x{ece}"
     "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}"
     "\\x{105c0}-\\x{105f3}\\x{10d40}-\\x{10d65}\\x{10d69}-\\x{10d6d}"
     "\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}"
     "\\x{1123f}-\\x{11241}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"
     "\\x{11390}-\\x{113b5}\\x{113b7}-\\x{113c0}\\x{113c2}\\x{113c5}"
     "\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d3}\\x{113e1}-\\x{113e2}"
     "\\x{116d0}-\\x{116e3}\\x{11bc0}-\\x{11be0}\\x{11bf0}-\\x{11bf9}"
     "\\x{11f00}-\\x{11f10}\\x{11f12}-\\x{11f3a}\\x{11f3e}-\\x{11f42}"
     "\\x{11f50}-\\x{11f5a}\\x{1342f}\\x{13440}-\\x{13455}\\x{13460}-\\x{143fa}"
     "\\x{16100}-\\x{16139}\\x{16d40}-\\x{16d6c}\\x{16d70}-\\x{16d79}\\x{18cff}"
     "\\x{1b132}\\x{1b155}\\x{1ccf0}-\\x{1ccf9}\\x{1df25}-\\x{1df2a}"
     "\\x{1e030}-\\x{1e06d}\\x{1e08f}\\x{1e4d0}-\\x{1e4f9}\\x{1e5d0}-\\x{1e5fa}"
     "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}",
     ""},
    {"#bracket_word", "A-Za-z0-9_\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}",
     "\\x{897}\\x{cf3}\\x{ece}\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}"
     "\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d40}-\\x{10d65}"
     "\\x{10d69}-\\x{10d6d}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}"
     "\\x{10efc}-\\x{10eff}\\x{1123f}-\\x{11241}\\x{11380}-\\x{11389}\\x{1138b}"
     "\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}-\\x{113c0}\\x{113c2}\\x{113c5}"
     "\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d3}\\x{113e1}-\\x{113e2}"
     "\\x{116d0}-\\x{116e3}\\x{11bc0}-\\x{11be0}\\x{11bf0}-\\x{11bf9}"
     "\\x{11f00}-\\x{11f10}\\x{11f12}-\\x{11f3a}\\x{11f3e}-\\x{11f42}"
     "\\x{11f50}-\\x{11f5a}\\x{1342f}\\x{13440}-\\x{13455}\\x{13460}-\\x{143fa}"
     "\\x{16100}-\\x{16139}\\x{16d40}-\\x{16d6c}\\x{16d70}-\\x{16d79}\\x{18cff}"
     "\\x{1b132}\\x{1b155}\\x{1ccf0}-\\x{1ccf9}\\x{1df25}-\\x{1df2a}"
     "\\x{1e030}-\\x{1e06d}\\x{1e08f}\\x{1e4d0}-\\x{1e4f9}\\x{1e5d0}-\\x{1e5fa}"
     "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}",
     ""},
    {"Punct", "\\p{P}\\p{S}",
     "\\x{1b4e}-\\x{1b4f}\\x{1b7f}\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}"
     "\\x{31e4}-\\x{31e5}\\x{31ef}\\x{10d6e}\\x{10d8e}-\\x{10d8f}"
     "\\x{113d4}-\\x{113d5}\\x{113d7}-\\x{113d8}\\x{11b00}-\\x{11b09}\\x{11be1}"
     "\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1cc00}-\\x{1ccef}"
     "\\x{1cd00}-\\x{1ceb3}\\x{1e5ff}\\x{1f6dc}\\x{1f774}-\\x{1f776}"
     "\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}\\x{1f8c0}-\\x{1f8c1}"
     "\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}"
     "\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}-\\x{1facf}\\x{1fada}-\\x{1fadc}"
     "\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}\\x{1fbcb}-\\x{1fbef}",
     ""},
    {"XDigit", "0-9A-Fa-f",
     "",
     ""},
    {"ASCII", "\\x00-\\x7f",
     "",
     ""},
    {"Any", "\\x{0}-\\x{10ffff}",
     "",
     ""},
    {"#word", "A-Za-z0-9_\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}",
     "\\x{897}\\x{cf3}\\x{ece}\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}"
     "\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d40}-\\x{10d65}"
     "\\x{10d69}-\\x{10d6d}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}"
     "\\x{10efc}-\\x{10eff}\\x{1123f}-\\x{11241}\\x{11380}-\\x{11389}\\x{1138b}"
     "\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}-\\x{113c0}\\x{113c2}\\x{113c5}"
     "\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d3}\\x{113e1}-\\x{113e2}"
     "\\x{116d0}-\\x{116e3}\\x{11bc0}-\\x{11be0}\\x{11bf0}-\\x{11bf9}"
     "\\x{11f00}-\\x{11f10}\\x{11f12}-\\x{11f3a}\\x{11f3e}-\\x{11f42}"
     "\\x{11f50}-\\x{11f5a}\\x{1342f}\\x{13440}-\\x{13455}\\x{13460}-\\x{143fa}"
     "\\x{16100}-\\x{16139}\\x{16d40}-\\x{16d6c}\\x{16d70}-\\x{16d79}\\x{18cff}"
     "\\x{1b132}\\x{1b155}\\x{1ccf0}-\\x{1ccf9}\\x{1df25}-\\x{1df2a}"
     "\\x{1e030}-\\x{1e06d}\\x{1e08f}\\x{1e4d0}-\\x{1e4f9}\\x{1e5d0}-\\x{1e5fa}"
     "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}",
     ""},
    {"#numeric", "0-9\\p{N}",
     "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"
     "\\x{11de0}-\\x{11de9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}"
     "\\x{16d70}-\\x{16d79}\\x{16ff4}-\\x{16ff6}\\x{1ccf0}-\\x{1ccf9}"
     "\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}",
     ""},
    {"#punctuation", "!-/:-@\\[-`{-~\\p{P}",
     "\\x{166d}\\x{111c9}",
     "\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b7d}-\\x{1b7e}"
     "\\x{2e43}-\\x{2e4f}\\x{2e52}-\\x{2e5d}\\x{10ead}\\x{10f55}-\\x{10f59}"
     "\\x{10f86}-\\x{10f89}\\x{1144b}-\\x{1144f}\\x{1145a}-\\x{1145b}\\x{1145d}"
     "\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}\\x{11944}-\\x{11946}\\x{119e2}"
     "\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}\\x{11a9e}-\\x{11aa2}"
     "\\x{11c41}-\\x{11c45}\\x{11c70}-\\x{11c71}\\x{11ef7}-\\x{11ef8}\\x{11fff}"
     "\\x{12ff1}-\\x{12ff2}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e95e}-\\x{1e95f}"},
    {"#combining", "\\p{M}",
     "\\x{1cf2}-\\x{1cf3}",
     "\\x{7fd}\\x{898}-\\x{89f}\\x{8ca}-\\x{8d3}\\x{9fe}\\x{afa}-\\x{aff}\\x{b55}"
     "\\x{c04}\\x{c3c}\\x{d00}\\x{d3b}-\\x{d3c}\\x{d81}\\x{eba}\\x{1715}\\x{180f}"
     "\\x{1abf}-\\x{1ace}\\x{1cf7}\\x{1df6}-\\x{1dfa}\\x{a82c}\\x{a8ff}"
     "\\x{10d24}-\\x{10d27}\\x{10eab}-\\x{10eac}\\x{10f46}-\\x{10f50}"
     "\\x{10f82}-\\x{10f85}\\x{11070}\\x{11073}-\\x{11074}\\x{110c2}"
     "\\x{11145}-\\x{11146}\\x{111c9}\\x{111ce}-\\x{111cf}\\x{1133b}\\x{1145e}"
     "\\x{1182c}-\\x{1183a}\\x{11930}-\\x{11935}\\x{11937}-\\x{11938}"
     "\\x{1193b}-\\x{1193e}\\x{11940}\\x{11942}-\\x{11943}\\x{119d1}-\\x{119d7}"
     "\\x{119da}-\\x{119e0}\\x{119e4}\\x{11a01}-\\x{11a0a}\\x{11a33}-\\x{11a39}"
     "\\x{11a3b}-\\x{11a3e}\\x{11a47}\\x{11a51}-\\x{11a5b}\\x{11a8a}-\\x{11a99}"
     "\\x{11d31}-\\x{11d36}\\x{11d3a}\\x{11d3c}-\\x{11d3d}\\x{11d3f}-\\x{11d45}"
     "\\x{11d47}\\x{11d8a}-\\x{11d8e}\\x{11d90}-\\x{11d91}\\x{11d93}-\\x{11d97}"
     "\\x{11ef3}-\\x{11ef6}\\x{16f4f}\\x{16f7f}-\\x{16f87}\\x{16fe4}"
     "\\x{16ff0}-\\x{16ff1}\\x{1cf00}-\\x{1cf2d}\\x{1cf30}-\\x{1cf46}"
     "\\x{1e130}-\\x{1e136}\\x{1e2ae}\\x{1e2ec}-\\x{1e2ef}"},
};

constexpr CodePointRange kOpaque[] = {
    {0x7fd, 0x7fd},
    {0x898, 0x89f},
    {0x8ca, 0x8d3},
    {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},
    {0xeba, 0xeba},
    {0x1715, 0x1715},
    {0x1abf, 0x1ace},
    {0x1df6, 0x1dfa},
    {0x32ff, 0x32ff},
    {0xa7f2, 0xa7f4},
    {0xa82c, 0xa82c},
    {0xab69, 0xab69},
    {0x10781, 0x10785},
    {0x10787, 0x107b0},
    {0x107b2, 0x107ba},
    {0x10d24, 0x10d27},
    {0x10eab, 0x10eac},
    {0x10efd, 0x10eff},
    {0x10f46, 0x10f50},
    {0x10f82, 0x10f85},
    {0x11070, 0x11070},
    {0x1133b, 0x1133b},
    {0x1145e, 0x1145e},
    {0x11839, 0x1183a},
    {0x11938, 0x11938},
    {0x1193d, 0x1193e},
    {0x11943, 0x11943},
    {0x119e0, 0x119e0},
    {0x11a34, 0x11a34},
    {0x11a47, 0x11a47},
    {0x11a99, 0x11a99},
    {0x11d42, 0x11d42},
    {0x11d44, 0x11d45},
    {0x11d97, 0x11d97},
    {0x11f41, 0x11f42},
    {0x16ff0, 0x16ff1},
    {0x1e030, 0x1e06d},
    {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136},
    {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef},
    {0x1f16c, 0x1f16c},
    {0x1fbf0, 0x1fbf9},
};

constexpr LowerCase kLower[] = {
    {0x130, "\x69\xcc\x87"},
    {0x1c89, "\xe1\xb2\x8a"},
    {0xa7cb, "\xc9\xa4"},
    {0xa7cc, "\xea\x9f\x8d"},
    {0xa7ce, "\xea\x9f\x8f"},
    {0xa7d2, "\xea\x9f\x93"},
    {0xa7d4, "\xea\x9f\x95"},
    {0xa7da, "\xea\x9f\x9b"},
    {0xa7dc, "\xc6\x9b"},
    {0x10d50, "\xf0\x90\xb5\xb0"},
    {0x10d51, "\xf0\x90\xb5\xb1"},
    {0x10d52, "\xf0\x90\xb5\xb2"},
    {0x10d53, "\xf0\x90\xb5\xb3"},
    {0x10d54, "\xf0\x90\xb5\xb4"},
    {0x10d55, "\xf0\x90\xb5\xb5"},
    {0x10d56, "\xf0\x90\xb5\xb6"},
    {0x10d57, "\xf0\x90\xb5\xb7"},
    {0x10d58, "\xf0\x90\xb5\xb8"},
    {0x10d59, "\xf0\x90\xb5\xb9"},
    {0x10d5a, "\xf0\x90\xb5\xba"},
    {0x10d5b, "\xf0\x90\xb5\xbb"},
    {0x10d5c, "\xf0\x90\xb5\xbc"},
    {0x10d5d, "\xf0\x90\xb5\xbd"},
    {0x10d5e, "\xf0\x90\xb5\xbe"},
    {0x10d5f, "\xf0\x90\xb5\xbf"},
    {0x10d60, "\xf0\x90\xb6\x80"},
    {0x10d61, "\xf0\x90\xb6\x81"},
    {0x10d62, "\xf0\x90\xb6\x82"},
    {0x10d63, "\xf0\x90\xb6\x83"},
    {0x10d64, "\xf0\x90\xb6\x84"},
    {0x10d65, "\xf0\x90\xb6\x85"},
    {0x16ea0, "\xf0\x96\xba\xbb"},
    {0x16ea1, "\xf0\x96\xba\xbc"},
    {0x16ea2, "\xf0\x96\xba\xbd"},
    {0x16ea3, "\xf0\x96\xba\xbe"},
    {0x16ea4, "\xf0\x96\xba\xbf"},
    {0x16ea5, "\xf0\x96\xbb\x80"},
    {0x16ea6, "\xf0\x96\xbb\x81"},
    {0x16ea7, "\xf0\x96\xbb\x82"},
    {0x16ea8, "\xf0\x96\xbb\x83"},
    {0x16ea9, "\xf0\x96\xbb\x84"},
    {0x16eaa, "\xf0\x96\xbb\x85"},
    {0x16eab, "\xf0\x96\xbb\x86"},
    {0x16eac, "\xf0\x96\xbb\x87"},
    {0x16ead, "\xf0\x96\xbb\x88"},
    {0x16eae, "\xf0\x96\xbb\x89"},
    {0x16eaf, "\xf0\x96\xbb\x8a"},
    {0x16eb0, "\xf0\x96\xbb\x8b"},
    {0x16eb1, "\xf0\x96\xbb\x8c"},
    {0x16eb2, "\xf0\x96\xbb\x8d"},
    {0x16eb3, "\xf0\x96\xbb\x8e"},
    {0x16eb4, "\xf0\x96\xbb\x8f"},
    {0x16eb5, "\xf0\x96\xbb\x90"},
    {0x16eb6, "\xf0\x96\xbb\x91"},
    {0x16eb7, "\xf0\x96\xbb\x92"},
    {0x16eb8, "\xf0\x96\xbb\x93"},
};
}  // namespace
// clang-format on

std::span<const CharSet> char_sets() {
  return kSets;
}
std::span<const CodePointRange> opaque_to_normalization() {
  return kOpaque;
}
std::span<const LowerCase> special_lower_case() {
  return kLower;
}

}  // namespace mantissa
