package main

import (
	"fmt"
	"io"
	"strings"
)

// column is a column of a table. Its heading may begin with marks. ">" aligns it to the
// right. Three marks say what happens if the table is wider than the terminal: with "+"
// the column moves to a line below each row, with "-" it is left out, and with "<" it is
// shortened. This is also the order in which it happens. Of the columns with "-", the
// last are left out first. A column without such a mark is always complete.
type column struct {
	title                     string
	right, below, drop, short bool
	width                     int
}

const columnGap = 2

// table prints rows in columns. Tabs separate cells.
func table(w io.Writer, header string, rows []string) {
	t, columns := tableOf(header, rows), columnsOf(w)
	if columns > 0 {
		t.fit(columns)
	}
	t.print(verbatim(w), columns)
}

// tableText is the text of a table.
type tableText struct {
	columns []column
	rows    [][]string
	moved   bool   // columns with the mark + are below the rows
	dropped []bool // nil if no column is left out
}

func tableOf(header string, rows []string) *tableText {
	t := &tableText{}
	for title := range strings.SplitSeq(header, "\t") {
		c := column{}
		name := strings.TrimLeft(title, ">+-<")
		for _, mark := range strings.TrimSuffix(title, name) {
			switch mark {
			case '>':
				c.right = true
			case '+':
				c.below = true
			case '-':
				c.drop = true
			case '<':
				c.short = true
			}
		}
		c.title, c.width = name, width(name)
		t.columns = append(t.columns, c)
	}
	for _, r := range rows {
		cells := strings.Split(r, "\t")
		for i, c := range cells {
			t.columns[i].width = max(t.columns[i].width, width(c))
		}
		t.rows = append(t.rows, cells)
	}
	return t
}

// shown reports whether a column is in the rows.
func (t *tableText) shown(i int) bool {
	return (!t.moved || !t.columns[i].below) && (t.dropped == nil || !t.dropped[i])
}

// total returns how many columns of the terminal the table takes.
func (t *tableText) total() int {
	n := -columnGap
	for i, c := range t.columns {
		if t.shown(i) {
			n += c.width + columnGap
		}
	}
	return n
}

// fit makes the table fit a terminal, if its marks allow that.
func (t *tableText) fit(columns int) {
	t.moved = t.total() > columns
	t.dropped = make([]bool, len(t.columns))
	for i := len(t.columns) - 1; i >= 0 && t.total() > columns; i-- {
		t.dropped[i] = t.columns[i].drop
	}
	for t.total() > columns { // one column less for the widest
		widest := -1
		for i, c := range t.columns {
			const least = 10 // columns of a text that is shortened
			if c.short && t.shown(i) && c.width > max(least, width(c.title)) && (widest < 0 || c.width > t.columns[widest].width) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		t.columns[widest].width--
	}
}

func (t *tableText) print(w io.Writer, columns int) {
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	t.printRow(w, titles)
	for _, cells := range t.rows {
		t.printRow(w, cells)
		if t.moved {
			t.printBelow(w, cells, columns)
		}
	}
}

func (t *tableText) printRow(w io.Writer, cells []string) {
	line := ""
	for i, cell := range cells {
		if !t.shown(i) {
			continue
		}
		c := t.columns[i]
		if width(cell) > c.width {
			cell = shorten(cell, c.width)
		}
		pad := strings.Repeat(" ", c.width-width(cell))
		if line != "" {
			line += strings.Repeat(" ", columnGap)
		}
		if c.right {
			line += pad + cell
		} else {
			line += cell + pad
		}
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}

// printBelow prints the columns that do not fit beside the others, with their titles.
func (t *tableText) printBelow(w io.Writer, cells []string, columns int) {
	var parts []string
	for i, cell := range cells {
		if t.columns[i].below && cell != "" {
			parts = append(parts, t.columns[i].title+": "+cell)
		}
	}
	if len(parts) == 0 {
		return
	}
	indent := strings.Repeat(" ", t.columns[0].width+columnGap)
	for _, line := range wrap(indent+strings.Join(parts, "; "), columns) {
		fmt.Fprintln(w, line)
	}
}
